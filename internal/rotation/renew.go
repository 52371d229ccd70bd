// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// renewedTTL is the life that is asked for a key in reserve: how long Vault may be away.
	// Issuers grant what they like.
	renewedTTL = 365 * 24 * time.Hour
	// briefLife is how long platforms let keys live by default.
	briefLife = 5 * time.Minute
	// spendable is how much of its life a key must have left to be relied upon.
	spendable = 30 * time.Second
	// youngKeyTime is how long the refusal of a new key may mean that it is not known
	// everywhere yet.
	youngKeyTime = 2 * time.Minute
)

// renew brings a record further whose keys work once. The current token makes the next
// key, which is stored before it, or the one before, is spent on the next token. A key
// that lives long is kept in reserve, for when the token's life ends while nobody is
// there.
func (a *advance) renew(ctx context.Context) error {
	if err := a.lose(ctx); err != nil {
		return err
	}
	wanted := a.want.token
	if until := a.mem.backedOff(); !until.IsZero() && wanted == nil && !a.want.rotate {
		a.out.wake(until)
		return nil
	}
	if a.rec.Token.isDue() || wanted.isToReplace(a.rec.Token) {
		if _, err := a.exchange(ctx, true); err != nil {
			return err
		}
	}
	if wanted != nil && wanted.dedicated {
		got, err := a.exchange(ctx, false)
		if err != nil {
			return err
		}
		a.out.token = got
	} else if wanted != nil {
		a.out.token = a.rec.Token
	}
	if err := a.rotateReused(ctx); err != nil {
		return err
	}
	if err := a.keepReserve(ctx); err != nil {
		return err
	}
	a.out.wake(a.rec.Token.DueAt)
	return nil
}

// exchange spends the current key on a token, which is stored and shared if keep says so. While the
// present token lives, another key is made and stored first.
func (a *advance) exchange(ctx context.Context, keep bool) (*Token, error) {
	unmade := a.prepare(ctx)
	if unmade != nil && !a.mayGoWithout(unmade, keep) {
		return nil, unmade
	}
	if at := a.lateWritesEndAt(); !at.IsZero() && !a.rec.Token.Lives() && !a.rec.Current.Spent {
		return nil, waitUntil(at, "the plugin has just started, and a late write of the process before could undo what becomes of the last key")
	}
	if !a.rec.Current.Spent {
		next, key := a.rec.clone(), *a.rec.Current
		key.Spent = true
		next.Current = &key
		if err := a.save(ctx, next); err != nil {
			return nil, err
		}
	}
	got, err := a.spend(ctx, keep)
	if a.showsBrief(err) {
		next := a.rec.clone()
		next.Brief = true
		if err := a.save(ctx, next); err != nil {
			return nil, err
		}
		return a.exchange(ctx, keep)
	}
	if a.isReusableNoMore(err) {
		if err := a.giveUp(ctx); err != nil {
			return nil, err
		}
		return a.exchange(ctx, keep)
	}
	switch {
	case err == nil:
		return got, nil
	case isRemembered(unmade):
		return nil, &rememberedError{err} // The next attempt is to begin with another key.
	default:
		return nil, errors.Join(unmade, err)
	}
}

// showsBrief says whether the refusal of a key in reserve shows, for the first time, that the
// issuer's keys do not live for long.
func (a *advance) showsBrief(refused error) bool {
	k := a.rec.Current
	return isRefused(refused) && a.rec.Token.Lives() && !a.rec.Brief && k.Managed && k.ExpiresAt.IsZero() && time.Since(k.CreatedAt) > briefLife
}

// prepare has the current key be one that can be spent, and, where keys live long, another one
// stored for when it is.
func (a *advance) prepare(ctx context.Context) error {
	if a.isToBeSentAgain(a.rec.Current) {
		return nil
	}
	if !a.rec.isGood(a.rec.Current) {
		if a.rec.Candidate == nil && !a.rec.Token.Lives() {
			return nil // Some issuers let keys work more than once.
		}
		if err := a.makeCurrent(ctx); err != nil {
			return err
		}
	}
	if a.rec.Candidate != nil || !a.rec.Token.Lives() || !a.rec.livesLong() || a.plan.Reuse && a.rec.Current.Reusable {
		return nil
	}
	return a.makeKey(ctx)
}

// makeCurrent puts a key that was not spent in the place of the current one.
func (a *advance) makeCurrent(ctx context.Context) error {
	if a.rec.Candidate == nil {
		if err := a.makeKey(ctx); err != nil {
			return err
		}
	}
	return a.save(ctx, a.succeed())
}

// mayGoWithout says whether a token is to be got though no other key could be made. The current
// token is kept until it is near its end; a key in reserve is for readers alone.
func (a *advance) mayGoWithout(unmade error, keep bool) bool {
	switch {
	case isDoubt(unmade):
		return false
	case keep:
		return a.rec.Token.isNearEnd() && !isRemembered(unmade)
	default:
		return a.rec.Current.Spent && isRefused(unmade)
	}
}

// isToBeSentAgain says whether a key was refused that may not have been known everywhere.
func (a *advance) isToBeSentAgain(k *Key) bool {
	return a.mem.wasRefused(k.ID) && a.isYoung(k)
}

// isYoung says whether the refusal of a key may mean that it is not known everywhere yet: this
// process has made it just now.
func (a *advance) isYoung(k *Key) bool { return a.mem.watchedFor(k.ID) < youngKeyTime }

// succeed is the record with the candidate, if there is one, in the place of the current key. A
// key that works more than once lives on for the grace period.
func (a *advance) succeed() Record {
	next := a.rec.clone()
	if next.Candidate == nil {
		return next
	}
	grace := time.Duration(0)
	if next.Current.Reusable {
		grace = a.grace()
	}
	if next.Current.Managed {
		next.Retired = append(next.Retired, Retired{Key: *next.Current, Grace: grace})
	}
	next.Current, next.Candidate, next.Grace = next.Candidate, nil, nil
	return next
}

// spend gets a token with the current key, which is stored as spent.
func (a *advance) spend(ctx context.Context, keep bool) (*Token, error) {
	key := *a.rec.Current
	trial, err := a.claim.Try(ctx, key)
	if isRefused(err) {
		return nil, a.refused(key, err)
	}
	if err != nil {
		return nil, err
	}
	defer trial.Close()
	a.mem.endTrials(key.ID)
	got := trial.Token()
	next, stays := a.rec, a.plan.Reuse && key.Managed
	if !stays {
		next = a.succeed()
	}
	if !keep && stays {
		return &got, a.prove(ctx)
	}
	if !keep {
		return &got, a.save(ctx, next)
	}
	next.Token = &got
	if err := a.claim.Adopt(ctx, next, trial); err != nil {
		return nil, &doubtError{err}
	}
	a.rec, a.plan = a.claim.Record(), a.claim.Plan()
	a.mem.succeeded()
	a.observe(Event{Ref: a.ref, Kind: Renewed, KeyID: key.ID})
	return &got, a.prove(ctx)
}

// refused says what a refusal means for the record, whose token may be alive.
func (a *advance) refused(key Key, err error) error {
	switch {
	case !a.rec.Token.Lives() && !a.isYoung(&key):
		return &usedUpError{ref: a.ref, why: err}
	case a.isYoung(&key):
		a.mem.refused(key.ID)
		return a.notKnownYet(err)
	case key.Managed:
		return fmt.Errorf("the key %s, which Vault had made, is refused: it was used or deleted by somebody else, or has expired; Vault makes another one while the present token lives, and nobody needs to do anything if that works: %w", key.ID, upstream.WithoutAdvice(err))
	default:
		return err
	}
}

// usedUpError says that there is no way on without a person.
type usedUpError struct {
	ref Ref
	why error
}

func (e *usedUpError) Error() string {
	return fmt.Sprintf("%s has no token any more, and no key that gets one; write another api_key: %s", e.ref, e.why)
}

func (e *usedUpError) Unwrap() error { return e.why }

// IsUsedUp says whether an error is that a record has no token and no key that gets one, so that
// to try again is of no use before somebody has written another key.
func IsUsedUp(err error) bool {
	var usedUp *usedUpError
	return errors.As(err, &usedUp)
}

// keepReserve makes a key for when the token's life ends while nobody is there, if
// there is none and the issuer's keys live that long. The first that is made tells.
func (a *advance) keepReserve(ctx context.Context) error {
	if a.rec.isGood(a.rec.Current) || a.rec.Candidate == nil && !a.rec.wantsReserve() {
		return nil
	}
	return a.makeCurrent(ctx)
}

func (r Record) wantsReserve() bool {
	return r.Token.Lives() && !r.isGood(r.Current) && (!r.Current.Managed || r.livesLong())
}

// livesLong says whether the current key was made to outlive a token.
func (r Record) livesLong() bool {
	k := r.Current
	if k.ExpiresAt.IsZero() {
		return k.Managed && !r.Brief
	}
	return k.Managed && k.ExpiresAt.Sub(k.CreatedAt) > r.Token.life()
}

// makeKey makes a key with the current token, which is the candidate then. It asks nobody
// while a failure is remembered.
func (a *advance) makeKey(ctx context.Context) error {
	if err := a.mem.lately(); err != nil && !a.want.rotate {
		return err
	}
	if at := a.lateWritesEndAt(); !at.IsZero() {
		return waitUntil(at, "the plugin has just started, and a late write of the process before may still land")
	}
	if a.plan.Issuer == "" {
		return refusef("the token_url of %s does not end in /token, so that Vault does not know where its keys are made", a.ref)
	}
	if err := a.lose(ctx); err != nil { // An attempt just now may have had no answer.
		return err
	}
	at := a.plan.binding()
	session, err := a.session(ctx, at, a.rec.Token.Value)
	if err != nil {
		return err
	}
	whose, err := session.Details(ctx)
	if err != nil {
		return err
	}
	at = at.Of(whose)
	if err := a.mayMakeMore(at); err != nil {
		return err
	}
	return a.create(ctx, session, a.rec.Current, NewKey{Of: at, Like: whose, TTL: renewedTTL})
}

// isGood says whether a key can be relied upon to get a token.
func (r Record) isGood(k *Key) bool {
	end := r.endOf(k)
	return (!k.Spent || k.Reusable) && (end.IsZero() || time.Until(end) > spendable)
}

// endOf is when a key ends, as far as is known, by the issuer's clock. It is zero where it is
// not.
func (r Record) endOf(k *Key) time.Time {
	if k.ExpiresAt.IsZero() && r.Brief {
		return k.CreatedAt.Add(briefLife)
	}
	return k.ExpiresAt
}

// hasEnded says whether a platform's key ended so long ago that nobody's clock is in doubt.
func (r Record) hasEnded(k *Key, ago time.Duration) bool {
	end := r.endOf(k)
	return k.Binding.Kind == KindPlatform && !end.IsZero() && time.Since(end) > ago
}

// rightByToken returns a session that may delete a key of an issuer which takes tokens.
func (a *advance) rightByToken(ctx context.Context, k Retired) (Session, error) {
	for _, t := range []*Token{a.rec.Token, k.Bearer} {
		if !t.Lives() || !t.At.isAt(k.Binding) {
			continue
		}
		s, err := a.session(ctx, k.Binding, t.Value)
		if err != nil {
			return nil, err
		}
		whose, err := s.Details(ctx)
		if err != nil {
			return nil, err
		}
		if whose.isOf(k.Binding) {
			return s, nil
		}
	}
	return nil, refusef("no token that Vault has may delete the key %s any more: delete it at the issuer", cmp.Or(k.ID, k.Name))
}

// expiredFor is how long after its end a key is dropped without being deleted, whatever the
// clocks say.
const expiredFor = 24 * time.Hour

// CanBeAwayUntil is how long nobody needs to look after a record whose keys work once: the end
// of its token's life, or of that of the key in reserve, where the issuer tells it. It is zero
// where nothing is left.
func (r Record) CanBeAwayUntil() (at time.Time) {
	if r.Token.Lives() {
		at = r.Token.ExpiresAt
	}
	for _, k := range r.unretired() {
		if k.Managed && r.isGood(k) {
			at = later(at, k.ExpiresAt)
		}
	}
	return at
}
