// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/metrics"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// entry is what is in memory of one config. Its config is never changed: a write
// replaces the whole entry, so that what began under the old config cannot end up
// under the new one. A step of a rotation that leaves the key in use as it is
// replaces the config alone.
type entry struct {
	config *config
	// source has the token that readers share, with cache=entity those without an entity,
	// and gets the dedicated ones.
	source *tokensource.Source
	// entities have the tokens of each entity's readers. They are nil but for cache=entity.
	entities *tokensource.Entities
	watch    *exchangeWatch
	// keepsTokens says that what is put in place of another entry has the same key and
	// destination, so that each entity keeps its token.
	keepsTokens bool
	// recheck is when readers must read storage again, as Unix nanoseconds; 0 is never.
	recheck atomic.Int64
}

// recheckAt has readers read the stored config again from a time on; zero is never.
func (e *entry) recheckAt(at time.Time) {
	if at.IsZero() {
		e.recheck.Store(0)
		return
	}
	e.recheck.Store(at.UnixNano())
}

func (e *entry) isToBeRechecked() bool {
	at := e.recheck.Load()
	return at != 0 && time.Now().UnixNano() >= at
}

// with is the entry with another config of the same key and settings.
func (e *entry) with(c *config) *entry {
	return &entry{config: c, source: e.source, entities: e.entities, watch: e.watch}
}

// close lets an exchange in flight finish; its outcome is no longer reported.
func (e *entry) close() {
	e.watch.active.Store(false)
	e.source.Close()
	if e.entities != nil {
		e.entities.Close()
	}
}

// closeUnlessShared is close of an entry that another one takes the place of.
func (e *entry) closeUnlessShared(successor *entry) {
	if e.source != successor.source {
		e.close()
	}
}

// currentToken is the token that the entry shares, for a record whose keys work once to keep. It
// is empty if there is none.
func (e *entry) currentToken() rotation.Token {
	token := e.source.Current()
	if token == nil {
		return rotation.Token{}
	}
	return rotation.Token{
		Value: token.Value, ID: token.ID, At: e.config.issuer(),
		IssuedAt: token.IssuedAt, DueAt: token.DueAt, ExpiresAt: token.ExpiresAt,
	}
}

// wiring is what entries are made of.
type wiring struct {
	// renewal gets tokens for configs whose keys work once. It is set before it is used.
	renewal    renewal
	transports *upstream.Transports
	limits     *exchangeLimits
	metrics    *metrics.Metrics
	events     *events
	vault      *framework.Backend
}

// wire makes the entry of a config called name. current is a token that its key was
// already exchanged for, or nil.
func (w *wiring) wire(name string, c *config, current *tokensource.IssuedToken) (*entry, error) {
	transport, err := w.transports.New(c.CACert)
	if err != nil {
		return nil, fieldError("ca_cert", err.Error())
	}
	if _, err := newTokenService(c, transport, nil); err != nil {
		return nil, err
	}
	x := &keyExchange{
		exchangeWatch: exchangeWatch{name: name, events: w.events, vault: w.vault},
		first:         entry{config: c}, transport: transport, metrics: w.metrics,
	}
	options := tokensource.Options{Exchanger: x, RefreshBefore: c.RefreshBefore, Current: current}
	if c.renews() {
		options.Exchanger = &keyRenewal{w.renewal, x}
		options.Current = cmp.Or(current, storedToken(c))
	}
	w.limits.applyTo(&options, name, c, transport)
	fresh := &x.first
	fresh.watch = &x.exchangeWatch
	if c.Cache == cacheEntity {
		options.Outcomes, options.Release = &tokensource.Outcomes{}, onLast(2, options.Release)
		fresh.entities = tokensource.NewEntities(options, maxEntities)
	}
	fresh.source = tokensource.New(options)
	return fresh, nil
}

// onLast returns a function that calls f when it is called for the n-th time.
func onLast(n int64, f func()) func() {
	var left atomic.Int64
	left.Store(n)
	return func() {
		if left.Add(-1) == 0 {
			f()
		}
	}
}

// keyExchange exchanges a config's key. The watch is in it, and the first entry that it is for, because
// the collector looks at each object by itself, of a hundred thousand configs.
type keyExchange struct {
	exchangeWatch
	first     entry
	transport *upstream.Transport
	metrics   *metrics.Metrics
	// worked says that the key has got a token.
	worked atomic.Bool
}

// trade makes the service anew each time: kept between two exchanges, it would be a tenth of
// what a config takes in memory.
func (x *keyExchange) trade(ctx context.Context) (*tokenservice.Token, error) {
	return counted(ctx, x.metrics, x.first.config.TokenService, func() (*tokenservice.Token, error) {
		service, err := newTokenService(x.first.config, x.transport, &x.worked)
		if err != nil {
			return nil, err
		}
		return service.Exchange(ctx)
	})
}

// Dedicated tells of what changes, and waits until a key of a rotation works.
func (x *keyExchange) Dedicated(ctx context.Context) (*tokenservice.Token, error) {
	exchange := x.trade
	if c := x.first.config; c.Keys.Current.Managed {
		exchange = retryRefusals(exchange, c.KeySetAt, x.active.Load)
	}
	return x.observe(ctx, exchange)
}

// Exchange leaves no connection for the token that all readers share: it will be an hour until the
// next one, and a hundred thousand configs may all do their first within a minute.
func (x *keyExchange) Exchange(ctx context.Context) (*tokenservice.Token, error) {
	if x.first.config.Cache == cacheShared {
		defer x.transport.CloseIdleConnections()
	}
	return x.Dedicated(ctx)
}

func newTokenService(c *config, transport *upstream.Transport, worked *atomic.Bool) (tokenservice.Service, error) {
	return tokenservice.New(tokenservice.Options{
		Kind:           c.TokenService,
		TokenURL:       c.tokenURL(),
		APIKey:         upstream.Secret(c.APIKey),
		ClientID:       c.ClientID,
		ClientSecret:   upstream.Secret(c.ClientSecret),
		Others:         c.Keys.KeyValues(),
		Worked:         worked,
		Transport:      transport,
		RequestTimeout: c.RequestTimeout,
		MaxRetries:     c.MaxRetries,
	})
}
