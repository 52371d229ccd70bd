// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/metrics"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// perConfigOption is the mount option that says which configs have metrics.
const perConfigOption = "per_config_metrics"

// perConfigMode says which configs have metrics.
type perConfigMode string

const (
	// perConfigAuto is all, or some of those in memory where loading all would take
	// long. See coverage.
	perConfigAuto perConfigMode = "auto"
	perConfigAll  perConfigMode = "true"
	perConfigNone perConfigMode = "false"

	maxLoadedForMetrics = 1000
	// maxInMemoryForMetrics bounds an exposition to some 4 MiB and less than a second, well
	// within the ten seconds that Prometheus waits.
	maxInMemoryForMetrics = 10_000
)

// coverage is which configs an exposition tells of: the first so many by name, of all or,
// without load, of those in memory.
type coverage struct {
	most int
	load bool
}

// coverage is that of a mount with a number of configs.
func (m perConfigMode) coverage(configs int) coverage {
	switch {
	case m == perConfigNone:
		return coverage{}
	case m == perConfigAll, configs <= maxLoadedForMetrics:
		return coverage{most: configs, load: true}
	default:
		return coverage{most: maxInMemoryForMetrics}
	}
}

func (b *backend) pathMetrics() *framework.Path {
	return &framework.Path{
		Pattern:      "metrics",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.metricsRead,
				Summary:      "Read the mount's metrics in Prometheus' text format.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "metrics"},
				Responses: map[int][]framework.Response{
					http.StatusOK: {{Description: "The metrics, not wrapped in JSON.", MediaType: "text/plain"}},
				},
			},
		},
		HelpSynopsis:    "Return the mount's metrics in Prometheus' text format.",
		HelpDescription: strings.TrimSpace(metricsHelp),
	}
}

func newMetrics(build BuildInfo) *metrics.Metrics {
	var services []string
	for _, kind := range tokenservice.Kinds() {
		services = append(services, string(kind))
	}
	return metrics.New(metrics.Build{Version: build.Version, Commit: build.Commit, GoVersion: runtime.Version()}, services)
}

// parsePerConfigMode reads the mount's options. A value other than true, false and auto
// counts as false, which tells least. It must not fail the mount, which would leave readers
// without tokens.
func (b *backend) parsePerConfigMode(options map[string]string) perConfigMode {
	value, set := options[perConfigOption]
	if !set || value == string(perConfigAuto) {
		return perConfigAuto
	}
	wanted, err := strconv.ParseBool(value)
	if err != nil {
		b.Logger().Warn("mount option is neither true, false nor auto, and taken for false", "option", perConfigOption)
	}
	if wanted {
		return perConfigAll
	}
	return perConfigNone
}

func (b *backend) metricsRead(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	state, err := b.metricsState(ctx)
	if err != nil {
		return answerError("read metrics", err)
	}
	text, err := b.metrics.Text(state)
	if err != nil {
		return answerError("read metrics", err)
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPContentType: metrics.ContentType(),
		logical.HTTPRawBody:     text,
		logical.HTTPStatusCode:  http.StatusOK,
	}}, nil
}

func (b *backend) metricsState(ctx context.Context) (metrics.State, error) {
	names, err := b.configs.List(ctx)
	if err != nil {
		return metrics.State{}, err
	}
	return b.metricsOf(ctx, names, b.perConfigMetrics.coverage(len(names)))
}

// metricsOf tells of the configs that are covered, and counts the others. A config that
// nobody uses is loaded if it is covered, so that its key is watched too. One that cannot
// be loaded does not hide the others.
func (b *backend) metricsOf(ctx context.Context, names []string, covered coverage) (metrics.State, error) {
	state := metrics.State{Configs: len(names)}
	get := b.configs.Get
	if !covered.load {
		get = func(_ context.Context, name string) (*entry, error) { return b.configs.inUse(name), nil }
	}
	for _, name := range names {
		if len(state.PerConfig) == covered.most {
			break
		}
		e, err := get(ctx, name)
		switch {
		case ctx.Err() != nil:
			return metrics.State{}, storageError("loading configs", ctx.Err())
		case err != nil:
			state.Unreadable++
		case e != nil:
			state.PerConfig = append(state.PerConfig, b.configMetrics(name, e))
		}
	}
	return state, nil
}

func (b *backend) configMetrics(name string, e *entry) metrics.Config {
	status := e.source.Status()
	told := metrics.Config{
		Name:             name,
		LastSuccess:      status.LastSuccess,
		ExchangeFailures: status.Failures,
		KeySetAt:         e.config.KeySetAt,
		NextRotation:     earlier(e.config.NextRotation, e.config.replaceKeyBy()),
		KeyExpiresAt:     e.config.keyExpiresAt(),
		RotationFailures: b.rotations.status(name).Failures,
	}
	if e.config.renews() {
		told.CanBeAwayUntil = e.config.Keys.CanBeAwayUntil()
	}
	tokens := e.tokens()
	if tokens.newest != nil {
		told.TokenExpiresAt = tokens.newest.ExpiresAt
		told.ClockSkew = tokens.newest.ClockSkew
	}
	if tokens.byEntity {
		told.EntityTokens = &tokens.entities
	}
	return told
}

func (b *backend) countRead(op logical.Operation, c *config, a tokensource.Response) {
	switch {
	case a.Stale:
		b.metrics.Read(metrics.ReadStale)
	case op == logical.ReadOperation && c.Cache != cacheOff:
		b.metrics.Read(metrics.ReadShared)
	default:
		b.metrics.Read(metrics.ReadDedicated)
	}
}

// countFailedRead leaves out a read that Vault forwards: the node that answers it
// counts it.
func (b *backend) countFailedRead(err error) {
	if !isReadOnly(err) {
		b.metrics.Read(metrics.ReadError)
	}
}

const metricsHelp = `
Returns, in Prometheus' text format, how many exchanges and reads there were, by
outcome. For each config, it also says when the token expires, how old the key is and
until when Vault may be down. Like every path, it needs a Vault token. To print it:

    $ vault read -format=raw <mount>/metrics

To keep the names of configs out of the metrics, set the mount option
per_config_metrics to false, and reload the plugin:

    $ vault secrets tune -options=per_config_metrics=false <mount>/
    $ vault write sys/plugins/reload/backend mounts=<mount>/
`
