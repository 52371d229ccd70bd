// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"time"
)

// Platforms may let keys work more than once. A record that is to reuse its keys keeps such a
// key until a rotation is due, as an ordinary rotation does. Where keys turn out to work once,
// or to end early, it goes on as if it had no rotation: each token takes a key of its own.

// rotateReused replaces a key that is reused, if that is asked for or due, and one of an
// operator's at once: nobody knows how long that lives. As in an ordinary rotation, the
// present key stays until its successor has got a token, which readers share then.
func (a *advance) rotateReused(ctx context.Context) error {
	if !a.plan.Reuse || !a.rec.Token.Lives() {
		return nil
	}
	if !a.isWanted() && !a.isEnding() && a.rec.Current.Managed && a.rec.Candidate == nil {
		return nil
	}
	if err := a.isMeant(); err != nil {
		return err
	}
	if a.rec.Candidate == nil {
		if err := a.makeKey(ctx); err != nil {
			return err
		}
	}
	if !a.rec.Candidate.Spent {
		next, candidate := a.rec.clone(), *a.rec.Candidate
		candidate.Spent = true
		next.Candidate = &candidate
		if err := a.save(ctx, next); err != nil {
			return err
		}
	}
	return a.finish(ctx)
}

// isEnding says whether the current key is to be replaced because it ends, though it was made to
// be used for long.
func (a *advance) isEnding() bool {
	by := a.rec.replaceReusedBy()
	if by.IsZero() || !time.Now().Before(by) {
		return !by.IsZero()
	}
	a.out.wake(by)
	return false
}

// replaceReusedBy is when a key that is reused is to be replaced because it ends, zero for never.
func (r Record) replaceReusedBy() time.Time {
	if !r.Current.Reusable || !r.Token.Lives() || !r.livesLong() {
		return time.Time{}
	}
	return r.Current.ReplaceBy()
}

// adoptToken adds to a record, whose current key has got the trial's token, what else a
// record has whose keys may work once.
func (a *advance) adoptToken(ctx context.Context, next *Record, trial Trial) {
	got, key := trial.Token(), *next.Current
	key.Reusable = a.works(ctx, key)
	next.Token, next.Current = &got, &key
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
	if !a.works(ctx, *a.rec.Current) {
		return a.save(ctx, a.succeed())
	}
	return a.save(ctx, a.rec.stay())
}

// works says whether a key gets another token, which is dropped.
func (a *advance) works(ctx context.Context, key Key) bool {
	trial, err := a.claim.Try(ctx, key)
	if isRefused(err) {
		a.observe(Event{Ref: a.ref, Kind: NotReusable, KeyID: key.ID, Err: err})
	}
	if err != nil {
		return false
	}
	trial.Close()
	return true
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
// not any more, while the current token can make another.
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
