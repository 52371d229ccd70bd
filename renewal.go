// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// renewal gets tokens for the configs whose keys work once, for which each token takes a key
// of its own: internal/rotation makes it, and stores what must not be lost.
type renewal struct {
	engine *rotation.Engine
	// mayWrite says whether this node may change what is stored.
	mayWrite func() bool
}

// keyRenewal has the source of a config that is in use, or was, get its tokens by renewals. While the
// config is only tried out, the source exchanges the key itself.
type keyRenewal struct {
	renewal
	of *keyExchange
}

func (r *keyRenewal) Exchange(ctx context.Context) (*tokenservice.Token, error) {
	return r.get(ctx, false)
}

func (r *keyRenewal) Dedicated(ctx context.Context) (*tokenservice.Token, error) {
	return r.get(ctx, true)
}

func (r *keyRenewal) get(ctx context.Context, dedicated bool) (*tokenservice.Token, error) {
	if r.of.used.Load() && !r.mayWrite() {
		return nil, fmt.Errorf("%w: %w", tokensource.ErrElsewhere, logical.ErrReadOnly)
	}
	return r.of.observe(ctx, func(ctx context.Context) (*tokenservice.Token, error) {
		if !r.of.used.Load() {
			return r.of.trade(ctx)
		}
		return r.renewed(ctx, dedicated)
	})
}

// renewed gets the token that follows the shared one, or a dedicated one.
func (r *keyRenewal) renewed(ctx context.Context, dedicated bool) (*tokenservice.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, youngKeyTimeout)
	defer cancel()
	have, _ := r.of.tokenID.Load().(string)
	got, err := r.engine.Renew(ctx, rotation.Ref{Config: r.of.name}, have, dedicated)
	if err != nil {
		return nil, err
	}
	return tokenOf(got), nil
}

// storedToken is the token that is stored of a config whose keys work once, nil if there is none that
// lives.
func storedToken(c *config) *tokensource.IssuedToken {
	kept := c.Keys.Token
	if !kept.Lives() {
		return nil
	}
	return tokensource.NewIssuedTokenSince(kept.IssuedAt, tokenOf(*kept), c.RefreshBefore)
}

func tokenOf(kept rotation.Token) *tokenservice.Token {
	return &tokenservice.Token{Value: kept.Value, ID: kept.ID, ExpiresAt: kept.ExpiresAt}
}

// renewTime bounds what is done of a renewal while the writer of a config waits.
const renewTime = 20 * time.Second

// renewNow makes the next key of a config that has one of its writer's, so that its writer hears of what
// keeps Vault from that. It returns why it could not.
func (b *backend) renewNow(ctx context.Context, w *configWrite) error {
	if !w.byOwner || !w.candidate.renews() || w.candidate.Keys.Token == nil || w.candidate.Keys.Current.Managed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	for {
		_, err := b.rotations.engine.Advance(ctx, rotation.Ref{Config: w.name})
		if err == nil {
			err = b.rotations.status(w.name).Last
		}
		present := b.configs.inUse(w.name)
		if err != nil || present == nil || present.config.Keys.Current.Managed {
			return err
		}
		b.configs.awaitClaim(ctx, w.name) // The schedule is about it already.
		if !sleep(ctx, time.Second) {
			return nil
		}
	}
}

// tryCurrentToken calls the issuer of a config whose keys work once with its token.
func (b *backend) tryCurrentToken(ctx context.Context, fresh *entry) error {
	at, kept := fresh.config.issuer(), fresh.config.Keys.Token
	if !kept.Lives() {
		return fieldError("verify", "cannot be done, because it would use up the key, and there is no current token; write a new api_key, or verify=false")
	}
	// A token that was refused is sent again no sooner than a key.
	backoff, release := b.limits.backoffs.acquire(tokenTrialID(at, kept.Value))
	defer release()
	if err := backoff.Check(); err != nil {
		return err
	}
	err := b.askIssuer(ctx, at, kept.Value, fresh.config.Keys.UID)
	if err == nil || isRefused(err) {
		backoff.Record(err)
	}
	return err
}

// askIssuer makes a call that changes nothing: it looks for a config's keys.
func (b *backend) askIssuer(ctx context.Context, at rotation.Binding, token rotation.Secret, uid string) error {
	session, err := b.issuer.Login(ctx, at, token)
	if err != nil {
		return err
	}
	defer session.Close()
	whose, err := session.Details(ctx)
	if err != nil {
		return err
	}
	_, err = session.Find(ctx, uid, at.Of(whose))
	return err
}
