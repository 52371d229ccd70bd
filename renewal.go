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

// applyTo has the source of a config that is in use, or was, get its tokens by renewals. While the
// config is only tried out, the source exchanges the key itself. The token that is stored is shared.
func (r renewal) applyTo(o *tokensource.Options, c *config, watch *exchangeWatch, exchange tokensource.ExchangeFunc) {
	get := func(dedicated bool) tokensource.ExchangeFunc {
		renewOrTry := func(ctx context.Context) (*tokenservice.Token, error) {
			if !watch.used.Load() {
				return exchange(ctx)
			}
			return r.token(ctx, watch, dedicated)
		}
		return func(ctx context.Context) (*tokenservice.Token, error) {
			if watch.used.Load() && !r.mayWrite() {
				return nil, fmt.Errorf("%w: %w", tokensource.ErrElsewhere, logical.ErrReadOnly)
			}
			return watch.observe(ctx, renewOrTry)
		}
	}
	o.Exchange, o.Dedicated = get(false), get(true)
	if kept := c.Keys.Token; o.Current == nil && kept.Lives() {
		o.Current = tokensource.NewIssuedTokenSince(kept.IssuedAt, tokenOf(*kept), c.RefreshBefore)
	}
}

// token gets the token that follows the shared one, or a dedicated one.
func (r renewal) token(ctx context.Context, watch *exchangeWatch, dedicated bool) (*tokenservice.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, youngKeyTimeout)
	defer cancel()
	have, _ := watch.tokenID.Load().(string)
	got, err := r.engine.Renew(ctx, rotation.Ref{Config: watch.name}, have, dedicated)
	if err != nil {
		return nil, err
	}
	return tokenOf(got), nil
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
