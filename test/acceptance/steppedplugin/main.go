// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command steppedplugin is the plugin with a storage that asks before and after
// each write whether to go on. Whoever answers can let the call fail, or kill the
// process in the middle of it.
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
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"

	apic "github.com/apic-vault/vault-plugin-secrets-apic"
)

// hookVariable names the URL of who is asked.
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
	made, err := apic.Factory(ctx, conf)
	if err != nil {
		return nil, err
	}
	return &steppedBackend{Backend: made, hook: os.Getenv(hookVariable)}, nil
}

type steppedBackend struct {
	logical.Backend
	hook string
}

func (b *steppedBackend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	req.Storage = steppedStorage{req.Storage, b.hook}
	return b.Backend.HandleRequest(ctx, req)
}

func (b *steppedBackend) Initialize(ctx context.Context, req *logical.InitializationRequest) error {
	req.Storage = steppedStorage{req.Storage, b.hook}
	return b.Backend.Initialize(ctx, req)
}

type steppedStorage struct {
	logical.Storage
	hook string
}

func (s steppedStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	var shown []byte
	if strings.HasPrefix(entry.Key, framework.WALPrefix) {
		shown = entry.Value // It is to hold no secret, which the one who is asked checks.
	}
	return s.around("put", entry.Key, shown, func() error { return s.Storage.Put(ctx, entry) })
}

func (s steppedStorage) Delete(ctx context.Context, key string) error {
	return s.around("delete", key, nil, func() error { return s.Storage.Delete(ctx, key) })
}

func (s steppedStorage) around(call, key string, shown []byte, do func() error) error {
	if err := s.ask("before", call, key, shown); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return s.ask("after", call, key, shown)
}

var errStep = errors.New("storage failed because it was told to")

// ask waits for the answer as long as that takes.
func (s steppedStorage) ask(when, call, key string, shown []byte) error {
	query := url.Values{"when": {when}, "call": {call}, "key": {key}}
	resp, err := http.Post(s.hook+"?"+query.Encode(), "application/json", bytes.NewReader(shown))
	if err != nil {
		return errStep
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errStep
	}
	return nil
}
