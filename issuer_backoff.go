// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
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
	limit, releaseLimit := i.rateLimits.acquire(rateLimitID(at.Issuer, at.CACert))
	session, err := i.login(ctx, at, value, limit)
	if err != nil {
		releaseLimit()
		return nil, err
	}
	return &limitedSession{session: session, limit: limit, release: releaseLimit}, nil
}

func (i *issuerBackoff) login(ctx context.Context, at rotation.Binding, value rotation.Secret, limit *tokensource.RateLimit) (rotation.Session, error) {
	backoff, release := i.backoffs.acquire(issuerBackoffID(at.Issuer, at.CACert, string(value)))
	defer release()
	backoff.Under(limit)
	if err := backoff.Check(); err != nil {
		return nil, err
	}
	session, err := i.Issuer.Login(ctx, at, value)
	var failed *upstream.Error
	if err == nil {
		backoff.Record(nil)
	} else if errors.As(err, &failed) && (failed.Outcome == upstream.Refused || failed.RetryAfter > 0) {
		backoff.Record(failed) // Without what it says of the key's state, which may be another one soon.
	}
	return session, err
}

// tokenTrialID is a platform's token together with the issuer that a check or a write tries it at.
// Sessions do not back off from what these are refused: a rotation may ask for something else.
func tokenTrialID(at rotation.Binding, token rotation.Secret) digest {
	return digestOf("token trial", at.Issuer, at.CACert, string(token))
}

// issuerBackoffID is a key together with the issuer that it is sent to.
func issuerBackoffID(issuer, caCert, value string) digest {
	return digestOf("issuer", issuer, caCert, value)
}
