// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import "context"

// Platforms may let keys work more than once. A record that is to reuse its keys keeps such a
// key until a rotation is due, as an ordinary rotation does. Where keys turn out to work once,
// or to end early, it goes on as if it had no rotation: each token takes a key of its own.

// rotateReused replaces a key that is reused, if that is asked for or due, and one of an
// operator's at once: nobody knows how long that lives. Readers share the token that the
// successor gets.
func (a *advance) rotateReused(ctx context.Context) error {
	if !a.plan.Reuse || !a.rec.Token.Lives() {
		return nil
	}
	if !a.isWanted() && a.rec.Current.Managed && a.rec.Candidate == nil {
		return nil
	}
	if a.rec.Candidate == nil {
		if err := a.makeKey(ctx); err != nil {
			return err
		}
	}
	replaced := a.rec.Current
	if err := a.save(ctx, a.succeed()); err != nil {
		return err
	}
	a.out.rotated, a.out.replaced = a.rec.Current, replaced
	a.observe(Event{Ref: a.ref, Kind: Rotated, KeyID: a.rec.Current.ID})
	_, err := a.exchange(ctx, true)
	return err
}

// isUnproven says whether it is to be found out if a key works more than once. No platform
// tells.
func (a *advance) isUnproven(k *Key) bool { return a.plan.Reuse && k.Managed && !k.Reusable }

// prove asks for a second token with the current key, which has just got one, and drops it.
// A key that gets it stays, and the one that was made to follow it goes.
func (a *advance) prove(ctx context.Context) error {
	if !a.isUnproven(a.rec.Current) {
		return nil
	}
	trial, err := a.claim.Try(ctx, *a.rec.Current)
	if isRefused(err) {
		a.observe(Event{Ref: a.ref, Kind: NotReusable, KeyID: a.rec.Current.ID, Err: err})
	}
	if err != nil {
		return a.save(ctx, a.succeed())
	}
	trial.Close()
	return a.save(ctx, a.rec.stay())
}

// stay is the record whose current key is found to work more than once.
func (r Record) stay() Record {
	next, key := r.clone(), *r.Current
	key.Reusable = true
	if next.Candidate != nil {
		next.Retired = append(next.Retired, Retired{Key: *next.Candidate})
	}
	next.Current, next.Candidate = &key, nil
	return next
}

// isReusableNoMore says whether a refusal shows that a key which has worked more than once does
// not any more, while the token in hand can make another.
func (a *advance) isReusableNoMore(refused error) bool {
	k := a.rec.Current
	return isRefused(refused) && k.Reusable && !a.isYoung(k) && a.rec.Token.Lives()
}

// giveUp stores that the current key gets no more tokens.
func (a *advance) giveUp(ctx context.Context) error {
	next, key := a.rec.clone(), *a.rec.Current
	key.Reusable = false
	next.Current = &key
	return a.save(ctx, next)
}
