// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// retire brings each retired key as far as it can go now. Only an error of storage ends
// it: a key that can't be deleted stands in no other's way. Those that depend on others
// for their deletion come first.
func (a *advance) retire(ctx context.Context) error {
	keys := slices.Clone(a.rec.Retired)
	slices.SortStableFunc(keys, func(x, y Retired) int { return x.rank() - y.rank() })
	for _, k := range keys {
		if err := a.retireKey(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

func (r Retired) rank() int {
	switch {
	case r.Keep:
		return 2
	case r.dependsOnOthers():
		return 0
	default:
		return 1
	}
}

func (a *advance) retireKey(ctx context.Context, k Retired) error {
	if k.Keep {
		if a.rec.isNeeded(k) {
			return nil
		}
		return a.save(ctx, a.rec.without(k))
	}
	c := a.mem.cleanup(k)
	if next := a.mem.cleanupDue(c); time.Now().Before(next) {
		a.out.wake(next)
		return nil
	}
	err := a.cleanUp(ctx, k, c)
	var wait *waitError
	switch {
	case isDoubt(err):
		return err
	case errors.As(err, &wait):
		a.mem.cleanupWaits(c, wait.until)
		a.out.wake(wait.until)
	case err != nil:
		a.out.wake(a.mem.cleanupFailed(c, err))
		a.observe(Event{Ref: a.ref, Kind: CleanupFailed, KeyID: k.ID, Err: err})
		if !isRefused(err) {
			a.out.err = errors.Join(a.out.err, err)
		}
	}
	return nil
}

// label is what the process remembers a retired key by: two issuers may use one id.
func (r Retired) label() string {
	return cmp.Or(r.ID, r.Name) + " " + r.Binding.Issuer + " " + r.Binding.CACert
}

// cleanUp does what is due for one retired key, by its issuer's clock. One that has expired is
// dropped, whether or not it may be deleted; where the issuer never told its end, which is
// assumed then, only if it could not be deleted in a day, and that is refused.
func (a *advance) cleanUp(ctx context.Context, k Retired, c *cleanup) error {
	expired := a.rec.hasEnded(&k.Key, expiredFor)
	if expired && !k.ExpiresAt.IsZero() {
		return a.drop(ctx, k, Expired)
	}
	err := a.bringToItsEnd(ctx, k, c)
	if expired && isRefused(err) && time.Since(c.since) > expiredFor {
		return a.drop(ctx, k, Expired)
	}
	return err
}

func (a *advance) bringToItsEnd(ctx context.Context, k Retired, c *cleanup) error {
	session, err := a.rightOf(ctx, k)
	if errors.Is(err, ErrNoSuchKey) {
		return a.presumeGone(ctx, k)
	}
	if err != nil {
		return err
	}
	if k.isLost() {
		return a.lookFor(ctx, session, k)
	}
	now := session.Now()
	// What lies further ahead than any grace period was set by a clock that was wrong.
	if k.DeleteAfter.IsZero() && k.Grace > 0 || k.DeleteAfter.Sub(now) > MaxGrace+clockSlack {
		k.DeleteAfter = now.Add(k.Grace)
		if err := a.save(ctx, a.rec.replace(k)); err != nil {
			return err
		}
	}
	if now.Before(k.DeleteAfter) {
		return a.inGrace(ctx, session, k, c)
	}
	return a.delete(ctx, session, k)
}

// rightOf returns a session that may delete a key: of the key in use if that has the
// same owner, and then of no other, for nothing is deleted while the key in use is
// refused; else of the key itself, or of another that the same owner left behind.
func (a *advance) rightOf(ctx context.Context, k Retired) (Session, error) {
	if k.Binding.Kind == KindPlatform {
		return a.rightByToken(ctx, k)
	}
	current := a.rec.Current
	if current != nil && current.mayAct(k.Binding) {
		s, err := a.session(ctx, k.Binding, current.Value)
		if isRefused(err) {
			return nil, refusef("no replaced key of %s is deleted while the one in use is refused: %s", a.ref, err)
		}
		return s, err
	}
	if k.Value != "" && !k.Disabled {
		s, err := a.session(ctx, k.Binding, k.Value)
		if !isRefused(err) || errors.Is(err, ErrNoSuchKey) {
			return s, err
		}
	}
	for _, other := range a.rec.Retired {
		if other.Value == "" || other.Disabled || other.isSame(k) || !other.mayAct(k.Binding) {
			continue
		}
		if s, err := a.session(ctx, k.Binding, other.Value); !isRefused(err) {
			return s, err
		}
	}
	return a.rightOfImported(ctx, k)
}

// rightOfImported asks whose the key in use is, if nobody knows yet.
func (a *advance) rightOfImported(ctx context.Context, k Retired) (Session, error) {
	none := refusef("no key that Vault has may delete it: write one of the identity %s, or delete it at the issuer", k.Binding.Identity)
	current := a.rec.Current
	if current == nil || current.Binding.Known() || !k.Binding.isAt(a.plan.binding()) {
		return nil, none
	}
	s, err := a.session(ctx, k.Binding, current.Value)
	var present Details
	if err == nil {
		present, err = s.Details(ctx)
	}
	if isRefused(err) || err == nil && !present.isOf(k.Binding) {
		return nil, none
	}
	return s, err
}

// presumeGone drops a key whose own value the issuer does not know, once it has said so
// for longer than its parts may take to agree.
func (a *advance) presumeGone(ctx context.Context, k Retired) error {
	if watched := time.Since(a.mem.watch(k.label())); watched < agreeTime {
		return waitUntil(time.Now().Add(agreeTime-watched), "the issuer does not know the key, but may get to know it")
	}
	return a.drop(ctx, k, Deleted)
}

// inGrace disables a key half-way through its grace, so that a forgotten user of it
// shows up while there is a way back. Only a key that another one can delete is disabled.
func (a *advance) inGrace(ctx context.Context, session Session, k Retired, c *cleanup) error {
	now := session.Now()
	due := func(at time.Time) error {
		return waitUntil(time.Now().Add(at.Sub(now)), "the key is in its grace period")
	}
	at := k.DisableAfter()
	if k.Disabled && !c.disable || at.IsZero() || a.rec.Current == nil || !a.rec.Current.mayAct(k.Binding) || a.rec.isNeeded(k) {
		return due(k.DeleteAfter)
	}
	if now.Before(at) {
		return due(at)
	}
	if end := a.lateWritesEndAt(); !end.IsZero() {
		return waitUntil(end, "a late write may still land")
	}
	gone, err := a.isGone(ctx, session, k)
	if err != nil {
		return err
	}
	if gone {
		return a.drop(ctx, k, Deleted)
	}
	if a.holders.Condemn(a.ref, k.Value) != nil {
		return due(k.DeleteAfter) // Somebody may be using it: that is told when it is to be deleted.
	}
	k.Disabled = true
	if err := a.save(ctx, a.rec.replace(k)); err != nil {
		return err
	}
	c.disable = true
	return a.disable(ctx, session, k, c)
}

// disable asks the issuer to. A key whose disabling was refused may be disabled all the
// same, by a call before that was not answered; only an issuer that knows no such thing
// has certainly not done it.
func (a *advance) disable(ctx context.Context, session Session, k Retired, c *cleanup) error {
	err := session.Disable(ctx, k.ID)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		k.Disabled, k.Grace = false, 0 // The end of its grace period is known.
		if err := a.save(ctx, a.rec.replace(k)); err != nil {
			return err
		}
	case err != nil && !isRefused(err):
		return err
	case err == nil:
		a.observe(Event{Ref: a.ref, Kind: KeyDisabled, KeyID: k.ID})
	}
	c.disable = false
	return waitUntil(time.Now().Add(k.DeleteAfter.Sub(session.Now())), "the key is in its grace period")
}

// delete deletes a key at its issuer. That it is decided is stored before: then nobody
// takes the key any more, and this process is known to be the one that may write. It is
// stored again each time, for that may have changed since.
func (a *advance) delete(ctx context.Context, session Session, k Retired) error {
	if at := a.lateWritesEndAt(); !at.IsZero() {
		return waitUntil(at, "a late write may still land")
	}
	if a.rec.isNeeded(k) {
		return refusef("the key %s is kept, for without it others of its identity could not be deleted", k.ID)
	}
	gone, err := a.isGone(ctx, session, k)
	if err != nil {
		return err
	}
	if gone {
		return a.drop(ctx, k, Deleted)
	}
	if err := a.condemn(k); err != nil {
		return err
	}
	k.Condemned = true
	if err := a.save(ctx, a.rec.replace(k)); err != nil {
		return err
	}
	err = session.Delete(ctx, k.ID)
	if errors.Is(err, ErrNoSuchKey) {
		err = a.believeGone(session, k)
	}
	if err != nil {
		return err
	}
	return a.drop(ctx, k, Deleted)
}

// condemn asks the holders. That they do not know all records is nothing to tell of soon
// after the start, for then they are about to be read.
func (a *advance) condemn(k Retired) error {
	err := a.holders.Condemn(a.ref, k.Value)
	known := a.started.Add(LateWriteTime + claimedWait)
	if errors.Is(err, ErrNotAllRead) && time.Since(known) < firstBackoff {
		return &waitError{until: later(time.Now().Add(claimedWait), known), because: err}
	}
	return err
}

// isGone looks at a key just before something is done to it. What is not exactly the
// key that was recorded is never touched.
func (a *advance) isGone(ctx context.Context, session Session, k Retired) (gone bool, err error) {
	d, err := session.Get(ctx, k.ID)
	if errors.Is(err, ErrNoSuchKey) {
		err = a.believeGone(session, k)
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	if d.ID != k.ID || d.Name != k.Name || !d.isOf(k.Binding) {
		return false, refusef("the issuer describes the key %s with another name, account or identity than it was made with, so that it is not deleted; look at it there", k.ID)
	}
	if d.Locked {
		return false, refusef("the key %s is locked at the issuer; unlock it there", k.ID)
	}
	return false, nil
}

// believeGone is nil if an issuer's "no such key" can be believed: the key is older, by
// the issuer's own clock, than its parts may take to agree on it.
func (a *advance) believeGone(session Session, k Retired) error {
	if age := session.Now().Sub(k.CreatedAt); age < agreeTime {
		return waitUntil(time.Now().Add(agreeTime-age), "the key is too young for the issuer's word that there is none")
	}
	return nil
}

// drop forgets a key that is gone at its issuer, as the kind of event says.
func (a *advance) drop(ctx context.Context, k Retired, as EventKind) error {
	if err := a.save(ctx, a.rec.without(k)); err != nil {
		return err
	}
	a.mem.cleanedUp(k)
	a.observe(Event{Ref: a.ref, Kind: as, KeyID: k.ID})
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
