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
	meta := &api.PluginAPIClientMeta{}
	err := meta.FlagSet().Parse(os.Args[1:])
	if err == nil {
		err = plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory, TLSProviderFunc: api.VaultPluginTLSProvider(meta.GetTLSConfig())})
	}
	if err != nil {
		hclog.New(&hclog.LoggerOptions{Output: os.Stderr, JSONFormat: true}).Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	// What it points to is never changed once it is stored.
	var answer atomic.Pointer[map[string]any]
	read := func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
		if data := answer.Load(); data != nil {
			return &logical.Response{Data: *data}, nil
		}
		return nil, nil
	}
	set := func(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		data := d.Get("answer").(map[string]any)
		answer.Store(&data)
		return nil, nil
	}
	b := &framework.Backend{BackendType: logical.TypeLogical, RunningVersion: version, Paths: []*framework.Path{{
		Pattern: "token/" + framework.GenericNameRegex("name"),
		Fields: map[string]*framework.FieldSchema{
			"name":   {Type: framework.TypeString, Description: "Any name; all have the same answer."},
			"answer": {Type: framework.TypeMap, Description: "What reads are answered with."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   &framework.PathOperation{Callback: read},
			logical.UpdateOperation: &framework.PathOperation{Callback: set},
		},
	}}}
	setup := *conf
	if conf.System != nil {
		setup.System = &systemView{SystemView: conf.System}
	}
	return b, b.Setup(ctx, &setup)
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
