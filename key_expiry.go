// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// lookUpTime bounds how long the writer of a config waits for what the issuer says of its key.
const lookUpTime = 15 * time.Second

// lookUpKey has the issuer say when the key ends of a config that rotates its key, so that it is
// rotated before that, unless the issuer has said so already. It returns why the issuer did not say it: a rotation would fail as well.
func (b *backend) lookUpKey(ctx context.Context, candidate *config) error {
	if candidate.TokenService == tokenservice.Platform || !candidate.rotatesAutomatically() || !candidate.Keys.Current.CreatedAt.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	session, err := b.issuer.Login(ctx, candidate.issuer(), upstream.Secret(candidate.APIKey))
	if err != nil {
		return err
	}
	defer session.Close()
	present, err := session.Details(ctx)
	if err != nil {
		return err
	}
	candidate.Keys = candidate.Keys.WithTimes(present.CreatedAt, present.ExpiresAt)
	return nil
}

// keyExpiresAt is when the key in use ends, as far as its issuer has said. It is zero where each
// token takes a key of its own.
func (c *config) keyExpiresAt() time.Time {
	if c.renews() {
		return time.Time{}
	}
	return c.Keys.Current.ExpiresAt
}

// replaceKeyBy is when the key in use is to be replaced at the latest because it ends, zero for
// never.
func (c *config) replaceKeyBy() time.Time {
	if !c.rotatesAutomatically() || c.DisableAutomatedRotation || c.renews() {
		return time.Time{}
	}
	return c.Keys.Current.ReplaceBy()
}
