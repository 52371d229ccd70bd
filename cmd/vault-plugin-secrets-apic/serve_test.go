// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"github.com/hashicorp/vault/sdk/plugin/pb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	apic "github.com/apic-vault/vault-plugin-secrets-apic"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// served is a mount of a plugin that this process serves to itself, as Vault's client sees it.
type served struct {
	*testing.T
	backend logical.Backend
	ctx     context.Context // that of the mount's calls
	storage logical.Storage
	// handled counts the requests that got to the SDK's server.
	handled atomic.Int64
}

// serveTo serves the plugin and sets up one mount.
func serveTo(t *testing.T) *served {
	t.Helper()
	t.Setenv("PLUGIN_PROTOCOL_VERSIONS", "5")
	s := &served{T: t, storage: &logical.InmemStorage{}}
	s.ctx = metadata.AppendToOutgoingContext(t.Context(), pluginutil.MultiplexingCtxKey, "a-mount")
	fresh := &apic.FreshReader{}
	config := serveConfig(hclog.NewNullLogger(), fresh.Factory(apic.BuildInfo{Version: "v1.0.0"}), func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return fresh.Intercept(ctx, request, info, func(ctx context.Context, request any) (any, error) {
			if info.FullMethod == pb.Backend_HandleRequest_FullMethodName {
				s.handled.Add(1)
			}
			return handler(ctx, request)
		})
	})
	ctx, end := context.WithCancel(context.Background())
	reattach, ended := make(chan *goplugin.ReattachConfig, 1), make(chan struct{})
	config.Test = &goplugin.ServeTestConfig{Context: ctx, ReattachConfigCh: reattach, CloseCh: ended}
	go goplugin.Serve(config)
	t.Cleanup(func() {
		end()
		<-ended
	})
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig, Plugins: config.VersionedPlugins[5], Reattach: <-reattach,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
	})
	t.Cleanup(client.Kill)
	connection, err := client.Client()
	if err != nil {
		t.Fatal(err)
	}
	dispensed, err := connection.Dispense(plugin.BackendPluginName)
	if err != nil {
		t.Fatal(err)
	}
	s.backend = dispensed.(logical.Backend)
	if err := s.backend.Setup(s.ctx, &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: logical.TestSystemView(), StorageView: s.storage}); err != nil {
		t.Fatal(err)
	}
	return s
}

// do returns the response to a request, and how many of the SDK's server it took.
func (s *served) do(ctx context.Context, op logical.Operation, path string, data map[string]any) (*logical.Response, int64) {
	s.Helper()
	before := s.handled.Load()
	resp, err := s.backend.HandleRequest(ctx, &logical.Request{Operation: op, Path: path, Data: data, Storage: s.storage})
	if err != nil || resp.IsError() {
		s.Fatalf("%s of %s: %v %v", op, path, err, resp)
	}
	return resp, s.handled.Load() - before
}

// TestServe_freshReads has the SDK's own client and server at both ends, from setup to clean-up.
func TestServe_freshReads(t *testing.T) {
	sim, err := apicsim.New(apicsim.Options{Keys: []string{"a-key"}})
	if err != nil {
		t.Fatal(err)
	}
	service, err := apicsim.Start(sim)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	s := serveTo(t)
	if _, handled := s.do(s.ctx, logical.CreateOperation, "config/us-south", map[string]any{
		"api_key": "a-key", "token_url": service.URL() + "/apikey", "api_url": service.URL(),
	}); handled != 1 {
		t.Errorf("a write took %d requests of the SDK's server", handled)
	}
	fresh, handled := s.do(s.ctx, logical.ReadOperation, "token/us-south", nil)
	if handled != 0 {
		t.Errorf("a read of a fresh token took %d requests of the SDK's server", handled)
	}
	replicated := logical.IndexStateContext(s.ctx, &logical.WALState{LocalIndex: 7})
	slow, handled := s.do(replicated, logical.ReadOperation, "token/us-south", nil)
	if handled != 1 {
		t.Errorf("a read with a state of replication took %d requests of the SDK's server", handled)
	}
	// A second may have passed between the two.
	delete(fresh.Data, "ttl")
	delete(slow.Data, "ttl")
	if !reflect.DeepEqual(fresh, slow) {
		t.Error("the two responses differ")
	}
	s.backend.Cleanup(s.ctx)
	if _, err := s.backend.HandleRequest(s.ctx, &logical.Request{Operation: logical.ReadOperation, Path: "token/us-south"}); err == nil {
		t.Error("a read was answered after the clean-up")
	}
}
