// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// exchangeLimits bound a mount's exchanges: the backoff of each key, the rate limit of each
// host, the slots of each config, and the life of the mount. They outlive entries, which a
// write replaces.
type exchangeLimits struct {
	backoffs   backoffs
	rateLimits rateLimits
	slots      tokensource.Slots
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
// calls release too. It holds what is remembered of the key at IBM Cloud IAM as well, and of
// its issuer, so that no number of made-up keys and services displaces that. The platform
// service is sent tokens in place of the key.
func (l *exchangeLimits) applyTo(o *tokensource.Options, name string, c *config, release func()) {
	backoff, releaseBackoff := l.backoffs.acquire(newBackoffID(c))
	limit, releaseLimit := l.rateLimits.acquire(rateLimitID(c.tokenURL(), c.CACert))
	backoff.Under(limit)
	issuer := c.issuer()
	releaseIssuer := func() {}
	if c.TokenService != tokenservice.Platform {
		_, releaseIssuer = l.backoffs.acquire(issuerBackoffID(issuer.Issuer, issuer.CACert, c.APIKey))
	}
	_, releaseIssuerLimit := l.rateLimits.acquire(rateLimitID(issuer.Issuer, issuer.CACert))
	if !c.renews() { // Renewals take turns by themselves, and have exchanges of their own.
		o.Slots, o.ConfigName = &l.slots, name
	}
	o.Lifetime, o.Backoff = l.lifetime, backoff
	o.Release = func() {
		releaseIssuerLimit()
		releaseIssuer()
		releaseBackoff()
		releaseLimit()
		release()
	}
}
