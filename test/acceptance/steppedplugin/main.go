// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command steppedplugin is the plugin with a storage that asks before and after
// each write whether to go on, as does each request for a rotation before it begins.
// The answer can let the call fail, or come after the process was killed.
package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"

	apic "github.com/apic-vault/vault-plugin-secrets-apic"
)

// hookVariable names the URL that is asked.
const hookVariable = "STEP_HOOK"

func main() {
	log.SetOutput(io.Discard) // As the plugin does, for what net/http quotes there.
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(os.Args[1:]); err != nil {
		logger.Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: newBackend,
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
		Logger:             logger,
	})
	if err != nil {
		logger.Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}

func newBackend(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	asked := hook(os.Getenv(hookVariable))
	stepped := *conf
	if conf.StorageView != nil {
		stepped.StorageView = steppedStorage{conf.StorageView, asked}
	}
	made, err := apic.Factory(ctx, &stepped)
	if err != nil {
		return nil, err
	}
	return &steppedBackend{Backend: made, hook: asked}, nil
}

// steppedBackend asks before a rotation, because Vault sends a request again to the
// next process if it is quick to see that one has ended.
type steppedBackend struct {
	logical.Backend
	hook hook
}

func (b *steppedBackend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if strings.HasSuffix(req.Path, "/rotate") {
		if err := b.hook.ask("before", "rotate", req.Path, nil); err != nil {
			return nil, err
		}
	}
	return b.Backend.HandleRequest(ctx, req)
}

type steppedStorage struct {
	logical.Storage
	hook hook
}

func (s steppedStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.around("put", entry.Key, entry.Value, func() error { return s.Storage.Put(ctx, entry) })
}

func (s steppedStorage) Delete(ctx context.Context, key string) error {
	return s.around("delete", key, nil, func() error { return s.Storage.Delete(ctx, key) })
}

func (s steppedStorage) around(call, key string, entry []byte, do func() error) error {
	if err := s.hook.ask("before", call, key, entry); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return s.hook.ask("after", call, key, entry)
}

var errStep = errors.New("the step failed because it was told to")

// hook is the URL that is asked.
type hook string

// ask waits for the answer as long as that takes.
func (h hook) ask(when, call, key string, entry []byte) error {
	query := url.Values{"when": {when}, "call": {call}, "key": {key}}
	resp, err := http.Post(string(h)+"?"+query.Encode(), "application/json", bytes.NewReader(entry))
	if err != nil {
		return errStep
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errStep
	}
	return nil
}
