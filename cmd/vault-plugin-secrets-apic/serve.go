// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"math"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"google.golang.org/grpc"

	apic "github.com/apic-vault/vault-plugin-secrets-apic"
)

// serve is the SDK's plugin.ServeMultiplex with a gRPC server of our own options, which that
// does not take, and with a reader of fresh tokens ahead of the SDK. What Vault and the plugin
// say to each other is the same.
func serve(logger hclog.Logger, build apic.BuildInfo, args []string) error {
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(args); err != nil {
		return err
	}
	if err := pluginutil.OptionallyEnableMlock(); err != nil {
		return err
	}
	fresh := &apic.FreshReader{}
	config := serveConfig(logger, fresh.Factory(build), fresh.Intercept)
	// The TLS provider serves Vault versions that do not do mutual TLS with their plugins by
	// themselves.
	config.TLSProvider = api.VaultPluginTLSProvider(meta.GetTLSConfig())
	goplugin.Serve(config)
	return nil
}

func serveConfig(logger hclog.Logger, factory logical.Factory, intercept grpc.UnaryServerInterceptor) *goplugin.ServeConfig {
	return &goplugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig,
		VersionedPlugins: pluginSets(logger, factory),
		Logger:           logger,
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			options = append(options, grpcOptions()...)
			return goplugin.DefaultGRPCServer(append(options, grpc.ChainUnaryInterceptor(intercept)))
		},
	}
}

// pluginSets are the versions of the protocol that the SDK has: one mount a process in the third
// and fourth, all mounts in one in the fifth.
func pluginSets(logger hclog.Logger, factory logical.Factory) map[int]goplugin.PluginSet {
	set := func(multiplexed bool) goplugin.PluginSet {
		return goplugin.PluginSet{
			plugin.BackendPluginName: &plugin.GRPCBackendPlugin{Factory: factory, Logger: logger, MultiplexingSupport: multiplexed},
		}
	}
	return map[int]goplugin.PluginSet{3: set(false), 4: set(false), 5: set(true)}
}

// window is how many bytes Vault may send before the plugin says that it read them. Vault's
// largest request takes 32 such turns by default, which are short on a connection within a host.
const window = 1 << 20

// requestWorkers are the goroutines that wait for requests. A request that finds them all busy gets
// one of its own.
const requestWorkers = 32

// grpcOptions lift the limits on messages, as the SDK does, and have requests handled by goroutines
// that stay, whose stacks have grown already. With windows of a set size, gRPC does not send Vault
// a ping with each request to find out which size would suit the network between them. That
// connections share their write buffers is gRPC's default.
func grpcOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.NumStreamWorkers(requestWorkers),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
	}
}
