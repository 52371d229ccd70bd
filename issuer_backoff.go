// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// issuerBackoff is an issuer to which no key is sent again as soon as it was refused, and
// which is not called as long as it asked not to be. A rotation that somebody asks
// for does not wait for the engine's own backoff, and a write ends that; neither is to have
// such a key sent time and again. Failures of other kinds are left to the engine.
type issuerBackoff struct {
	rotation.Issuer
	backoffs   *backoffs
	rateLimits *rateLimits
}

// Login implements rotation.Issuer. What it remembers is not what token reads back off
// from: a key that was just created may be known to the one and not to the other.
func (i *issuerBackoff) Login(ctx context.Context, at rotation.Binding, value rotation.Secret) (rotation.Session, error) {
	backoff, releaseBackoff := i.backoffs.acquire(issuerBackoffID(at.Issuer, at.CACert, string(value)))
	limit, releaseLimit := i.rateLimits.acquire(rateLimitID(at.Issuer, at.CACert))
	backoff.Under(limit)
	s := &limitedSession{
		limit: limit, backoff: backoff, byToken: at.Kind == rotation.KindPlatform,
		release: func() { releaseLimit(); releaseBackoff() },
	}
	if err := s.login(ctx, i.Issuer, at, value); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// issuerBackoffID is a key together with the issuer that it is sent to.
func issuerBackoffID(issuer, caCert, value string) digest {
	return digestOf("issuer", issuer, caCert, value)
}
