// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// exchangeLimits bound a mount's exchanges: the backoff of each key, the rate limit of each
// host, the slots of each config, and the life of the mount. With what refreshes tokens, they
// outlive entries, which a write replaces.
type exchangeLimits struct {
	backoffs   backoffs
	rateLimits rateLimits
	slots      tokensource.Slots
	refresher  tokensource.Refresher
	// lifetime is that of the exchanges in flight, and end ends it.
	lifetime context.Context
	end      context.CancelFunc
}

func newExchangeLimits() *exchangeLimits {
	l := &exchangeLimits{}
	l.lifetime, l.end = context.WithCancel(context.Background())
	return l
}

// applyTo puts the limits of a config called name into a source's options. The source
// holds them until it is closed and none of its exchanges is in flight, and then
// closes the transport's connections too.
func (l *exchangeLimits) applyTo(o *tokensource.Options, name string, c *config, transport *upstream.Transport) {
	l.hold(c)
	o.Backoff = l.backoffs.get(newBackoffID(c))
	o.Backoff.Under(l.rateLimits.get(tokenHostID(c)))
	if !c.renews() { // Renewals take turns by themselves, and have exchanges of their own.
		o.Slots, o.ConfigName = &l.slots, name
	}
	o.Lifetime, o.Refresher = l.lifetime, &l.refresher
	o.Release = func() {
		if l.lifetime.Err() == nil { // Else nobody asks any more, and a hundred thousand take a second.
			l.release(c)
		}
		transport.CloseIdleConnections()
	}
}

// hold keeps what is remembered of a config's key and its token service until release, and
// of its issuer as well, so that no number of made-up keys and services displaces that.
func (l *exchangeLimits) hold(c *config) { l.each(c, l.backoffs.hold, l.rateLimits.hold) }

func (l *exchangeLimits) release(c *config) { l.each(c, l.backoffs.release, l.rateLimits.release) }

// each does something with the ids of each backoff and rate limit of a config, whose key and
// destination nobody changes. The platform service has none of its issuer's backoffs: it is sent
// tokens in place of the key.
func (l *exchangeLimits) each(c *config, backoff, rateLimit func(digest)) {
	issuer := c.issuer()
	backoff(newBackoffID(c))
	rateLimit(tokenHostID(c))
	rateLimit(rateLimitID(issuer.Issuer, issuer.CACert))
	if c.TokenService != tokenservice.Platform {
		backoff(issuerBackoffID(issuer.Issuer, issuer.CACert, c.APIKey))
	}
}

// tokenHostID is the id of the rate limit of the host that exchanges the config's key.
func tokenHostID(c *config) digest { return rateLimitID(c.tokenURL(), c.CACert) }
