// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package apic is a Vault secrets engine that keeps IBM API Connect API keys and
// answers reads with the short-lived JWTs that they are exchanged for.
package apic

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/keyissuer"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/metrics"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	operationPrefix = "apic"

	endpointsPath = "endpoints/"

	// developmentVersion is what a build reports that no release script made.
	developmentVersion = "v0.0.0-dev"
)

var _ logical.Factory = Factory

type backend struct {
	*framework.Backend
	configs   *configStore
	rotations *rotations
	issuer    rotation.Issuer
	events    *events
	limits    *exchangeLimits
	checks    *checks

	transports       upstream.Transports
	build            BuildInfo
	metrics          *metrics.Metrics
	perConfigMetrics perConfigMode
}

// Factory makes a backend that reports a development version. It touches neither
// storage nor the system view, because Vault's plugin catalogue calls it with
// neither.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	return FactoryWithBuild(BuildInfo{Version: developmentVersion})(ctx, conf)
}

// FactoryWithBuild is Factory for a build that knows which one it is.
func FactoryWithBuild(build BuildInfo) logical.Factory {
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		b := newBackend(build)
		setup := *conf
		if conf.System != nil {
			setup.System = &systemView{SystemView: conf.System}
		}
		if err := b.Setup(ctx, &setup); err != nil {
			return nil, err
		}
		b.configs.storage = conf.StorageView
		b.perConfigMetrics = b.parsePerConfigMode(conf.Config)
		return b, nil
	}
}

func newBackend(build BuildInfo) *backend {
	b := &backend{
		build: build, metrics: newMetrics(build), limits: newExchangeLimits(),
		transports: upstream.Transports{UserAgent: userAgent(build)},
	}
	b.Backend = &framework.Backend{
		Help:           strings.TrimSpace(backendHelp),
		BackendType:    logical.TypeLogical,
		RunningVersion: build.Version,
		PathsSpecial: &logical.Paths{
			SealWrapStorage: []string{configStoragePrefix, tombstoneStoragePrefix},
			// A policy needs sudo for what sends a key elsewhere without knowing it.
			Root: []string{endpointsPath + "*"},
		},
		// The first pattern that matches wins, and config/<name> matches everything below
		// config/: longer patterns first. The busiest is at the top.
		Paths: []*framework.Path{
			b.pathToken(),
			b.pathConfigList(),
			b.pathConfigRotate(),
			b.pathRotateRoot(),
			b.pathConfigCheck(),
			b.pathConfig(),
			b.pathEndpoints(),
			b.pathStatus(),
			b.pathMetrics(),
			b.pathInfo(),
		},
		Secrets:        []*framework.Secret{b.tokenLease()},
		InitializeFunc: b.initialize,
		PeriodicFunc:   b.periodic,
		Invalidate:     b.invalidate,
		Clean:          b.clean,
	}
	b.events = &events{vault: b.Backend}
	issuers := keyissuer.ByKind{
		IAM:      &keyissuer.IAM{Transports: &b.transports, RequestTimeout: defaultRequestTimeout, MaxRetries: defaultMaxRetries},
		Platform: &keyissuer.Platform{Transports: &b.transports, RequestTimeout: defaultRequestTimeout, MaxRetries: defaultMaxRetries},
	}
	b.issuer = &issuerBackoff{Issuer: issuers, backoffs: &b.limits.backoffs, rateLimits: &b.limits.rateLimits}
	wires := &wiring{transports: &b.transports, limits: b.limits, metrics: b.metrics, events: b.events, vault: b.Backend}
	b.configs = newConfigStore(wires.wire)
	b.rotations = newRotations(b.configs, b.issuer, b.metrics, b.events, b.Backend)
	b.checks = newChecks(b.Logger, func(ctx context.Context, name string, e *entry) []finding {
		return b.newChecker(name, e).check(ctx)
	})
	wires.renewal = renewal{engine: b.rotations.engine, mayWrite: b.WriteSafeReplicationState}
	return b
}

// initialize begins what is done in the background, on a node that may write.
func (b *backend) initialize(context.Context, *logical.InitializationRequest) error {
	b.startRotations()
	return nil
}

// periodic is called about once a minute. A node may have got the right to write
// since the last time.
func (b *backend) periodic(context.Context, *logical.Request) error {
	b.startRotations()
	return nil
}

func (b *backend) startRotations() {
	if b.WriteSafeReplicationState() {
		b.rotations.start()
	}
}

// HandleRequest makes up for what the framework leaves to its users: a panic in
// a handler must not end the process, which serves other mounts too, and no error
// may quote a value.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (resp *logical.Response, err error) {
	defer b.recoverTo(&err, req.Operation)
	if len(req.Data) > 0 {
		stringifySecretFields(req)
		if path := b.Route(req.Path); path != nil {
			if err := checkFieldTypes(path, req.Data); err != nil {
				return answerError("check fields", err)
			}
		}
	}
	return b.Backend.HandleRequest(ctx, req)
}

// HandleExistenceCheck keeps the request's fields from the framework's check of
// their types, whose error quotes them and is logged by Vault. Whether a config
// exists depends on the path alone.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checked, exists bool, err error) {
	defer b.recoverTo(&err, req.Operation)
	bare := *req
	bare.Data = nil
	return b.Backend.HandleExistenceCheck(ctx, &bare)
}

// recoverTo turns a panic into a 500.
func (b *backend) recoverTo(err *error, doing logical.Operation) {
	p := recover()
	if p == nil {
		return
	}
	reportPanic(b.Logger(), p, string(doing))
	*err = logical.CodedError(http.StatusInternalServerError, "the plugin failed on this request; the server's log says where")
}

// reportPanic logs the panic's type and not its value, which could quote a secret.
func reportPanic(log hclog.Logger, p any, doing string) {
	stack := make([]byte, 16<<10)
	stack = stack[:runtime.Stack(stack, false)]
	log.Error("recovered from a panic; please report this", "operation", doing, "type", fmt.Sprintf("%T", p), "stack", string(stack))
}

// invalidate drops what is in memory of a config that another node wrote.
func (b *backend) invalidate(_ context.Context, key string) {
	if name, ok := strings.CutPrefix(key, configStoragePrefix); ok {
		b.configs.Invalidate(name)
	}
}

func (b *backend) clean(context.Context) {
	b.checks.Close()
	b.rotations.Close()
	b.limits.end()
	b.configs.Close()
}

const backendHelp = `
The API Connect secrets engine stores API keys of IBM API Connect and exchanges them
for short-lived JWTs.

Write one key per region under config/<name>, then read token/<name> to get a
token. No path returns the key. A policy on token/<name> decides who gets tokens.
`
