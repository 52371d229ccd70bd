// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command floor is the least that a Vault plugin can do to answer a read: it
// hands out one answer that it was given before. What the engine costs is what it
// takes longer than this.
package main

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

// version is set through the linker, to what the plugin is registered with.
var version = "v0.0.0-dev"

func main() {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	if err := serve(logger, os.Args[1:]); err != nil {
		logger.Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}

func serve(logger hclog.Logger, args []string) error {
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(args); err != nil {
		return err
	}
	return plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: factory,
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
		Logger:             logger,
	})
}

type backend struct {
	*framework.Backend
	// answer is never changed once it is stored.
	answer atomic.Pointer[map[string]any]
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	b := &backend{}
	b.Backend = &framework.Backend{
		BackendType:    logical.TypeLogical,
		RunningVersion: version,
		Paths:          []*framework.Path{b.pathToken()},
	}
	setup := *conf
	if conf.System != nil {
		setup.System = &systemView{SystemView: conf.System}
	}
	if err := b.Setup(ctx, &setup); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *backend) pathToken() *framework.Path {
	return &framework.Path{
		Pattern: "token/" + framework.GenericNameRegex("name"),
		Fields: map[string]*framework.FieldSchema{
			"name":   {Type: framework.TypeString, Description: "Any name; all have the same answer."},
			"answer": {Type: framework.TypeMap, Description: "What reads are answered with."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   &framework.PathOperation{Callback: b.read},
			logical.UpdateOperation: &framework.PathOperation{Callback: b.set},
		},
	}
}

func (b *backend) read(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	answer := b.answer.Load()
	if answer == nil {
		return nil, nil
	}
	return &logical.Response{Data: *answer}, nil
}

func (b *backend) set(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	answer := d.Get("answer").(map[string]any)
	b.answer.Store(&answer)
	return nil, nil
}

// systemView answers ReplicationState from memory, as the engine does: without
// it the framework makes a round trip to Vault on every request.
type systemView struct {
	logical.SystemView
	last atomic.Pointer[observedState]
}

type observedState struct {
	state consts.ReplicationState
	at    time.Time
}

func (v *systemView) ReplicationState() consts.ReplicationState {
	if last := v.last.Load(); last != nil && time.Since(last.at) < time.Second {
		return last.state
	}
	observed := &observedState{state: v.SystemView.ReplicationState(), at: time.Now()}
	v.last.Store(observed)
	return observed.state
}
