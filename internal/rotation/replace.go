// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// replace brings a rotation further: what was left of an earlier one first, then one
// that is due or asked for.
func (a *advance) replace(ctx context.Context) error {
	if until := a.mem.backedOff(); !until.IsZero() && !a.want.rotate {
		a.out.wake(until)
		return nil
	}
	if err := a.lose(ctx); err != nil {
		return err
	}
	if a.rec.Candidate == nil {
		begun, err := a.begin(ctx)
		if !begun || err != nil {
			return err
		}
	}
	return a.finish(ctx)
}

// begin creates a successor if one is wanted.
func (a *advance) begin(ctx context.Context) (begun bool, err error) {
	if a.rec.Current == nil || !a.isWanted() {
		return false, nil
	}
	if err := a.isMeant(); err != nil {
		return false, err
	}
	if err := a.mayRotate(); err != nil {
		return false, err
	}
	at := a.plan.binding()
	session, err := a.session(ctx, at, a.rec.Current.Value)
	if err != nil {
		return false, err
	}
	present, err := session.Details(ctx)
	if err != nil {
		return false, err
	}
	if err := a.checkDiscretion(present); err != nil {
		return false, err
	}
	current, err := a.bind(present, session)
	if err != nil {
		return false, err
	}
	at = at.Of(present)
	if err := a.mayMakeMore(at); err != nil {
		return false, err
	}
	successor, err := a.successorOf(at, present, session)
	if err != nil {
		return false, err
	}
	if err := a.rejectStrangers(ctx, session, at); err != nil {
		return false, err
	}
	return true, a.create(ctx, session, current, successor)
}

// isMeant fails if the current key is not the one that a rotation was asked for of.
func (a *advance) isMeant() error {
	if of := a.want.of; of != nil && *of != a.rec.Current.Value {
		return refusef("another api key was written to %s while the rotation was under way, and is kept", a.ref)
	}
	return nil
}

// isWanted says whether a rotation is asked for or due.
func (a *advance) isWanted() bool {
	if a.want.rotate {
		return true
	}
	if a.plan.Due.IsZero() {
		return false
	}
	if time.Now().Before(a.plan.Due) {
		a.out.wake(a.plan.Due)
		return false
	}
	if until := a.plan.Until; !until.IsZero() && !time.Now().Before(until) {
		a.out.wake(until) // The next plan says when it may begin again.
		return false
	}
	return true
}

// mayRotate refuses what could not be finished.
func (a *advance) mayRotate() error {
	if at := a.lateWritesEndAt(); !at.IsZero() {
		return waitUntil(at, "the plugin has just started, and a late write of the process before may still land")
	}
	if by, ok := a.holders.OtherHolder(a.ref, a.rec.Current.Value); ok {
		return &RefusedError{Reason: (&HeldError{By: by}).Error() + ", for a rotation deletes the old one"}
	}
	return nil
}

// mayMakeMore refuses a key for an identity that has too many left already.
func (a *advance) mayMakeMore(of Binding) error {
	left := 0
	for _, k := range a.rec.Retired {
		if !k.Keep && !a.rec.hasEnded(&k.Key, time.Hour) && k.Binding.isAt(of) && k.Binding.AccountID == of.AccountID && k.Binding.Identity == of.Identity {
			left++
		}
	}
	if left < MaxRetired {
		return nil
	}
	return refusef("%d replaced keys of %s are not deleted at the issuer yet, and more would be left there; its status says why", left, a.ref)
}

// bind returns the current key with what the issuer says of it, or refuses it if that
// is not what it said before.
func (a *advance) bind(present Details, session Session) (*Key, error) {
	current := *a.rec.Current
	current.ExpiresAt = present.ExpiresAt
	switch {
	case present.Locked:
		return nil, refusef("the api key of %s is locked at its issuer, so that it could not be deleted after its rotation; unlock it there, then rotate", a.ref)
	case current.ID != "" && current.ID != present.ID,
		current.Binding.Known() && !present.isOf(current.Binding):
		return nil, refusef("the issuer says that the api key of %s has another id, account or identity than it had; check the issuer's address, or write the key again", a.ref)
	}
	at := a.plan.binding().Of(present)
	switch {
	case !current.Binding.Known():
		current.ID, current.Name, current.CreatedAt = present.ID, present.Name, createdAt(present, session)
		current.Binding = at
	case current.Binding.Issuer == at.Issuer:
		current.Binding = at // The key has just been sent there by the CA that the config names.
	case !slices.Contains(current.Elsewhere, at):
		current.Elsewhere = append(slices.Clone(current.Elsewhere), at)
	}
	return &current, nil
}

// create makes a key, of which all is known but the name. The intent is stored before it,
// with what is known of the current key by now, and the candidate after.
func (a *advance) create(ctx context.Context, session Session, current *Key, key NewKey) error {
	of := key.Of
	intent := Intent{Token: strings.ToLower(rand.Text()[:12]), Binding: of, Since: session.Now()}
	intended := a.rec.clone()
	intended.Current, intended.Intent, intended.Grace = current, &intent, a.want.grace
	creating, cancel := context.WithTimeout(ctx, creationTime)
	defer cancel()
	if err := a.save(creating, intended); err != nil {
		return err
	}
	key.Name = a.rec.nameOf(intent)
	made, value, err := session.Create(creating, key)
	if err != nil && hadNoEffect(err) {
		return errors.Join(err, a.clearIntent(ctx, intent))
	}
	if err == nil && (!made.isOf(of) || a.rec.knows(made.ID) || value == "") {
		err = refusef("the issuer answered the creation of a key for %s with a key of somebody else", a.ref)
	}
	if err == nil {
		err = a.checkDiscretion(made)
	}
	if err != nil {
		return err // The intent stays, for there may be a key.
	}
	kept := Key{Value: value, ID: made.ID, Name: made.Name, Binding: of, Managed: true, CreatedAt: createdAt(made, session), ExpiresAt: made.ExpiresAt}
	return a.keep(ctx, intent, kept, a.weakened(made, key))
}

// clearIntent clears the intent of a creation that had no effect.
func (a *advance) clearIntent(ctx context.Context, intent Intent) error {
	next := a.rec.clone()
	next.Intent, next.Grace = nil, nil
	return a.save(ctx, next.tidy())
}

// keep stores a key that was just created, in place of its intent, as the candidate or, for a
// reason, as one to be deleted. If that fails, the intent is stored still and the key is found by
// it, unless it can be stored now.
func (a *advance) keep(ctx context.Context, intent Intent, made Key, unfit error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	for attempt := 0; ; attempt++ {
		next := a.rec.clone()
		intended := next.Intent != nil && next.Intent.Token == intent.Token
		if intended {
			next.Intent = nil
		}
		switch {
		case intended && unfit == nil:
			next.Candidate = &made
		case intended:
			next.Grace = nil
			next.Retired = append(next.Retired, Retired{Key: made})
		case !next.knows(made.ID):
			next.Retired = append(next.Retired, Retired{Key: made})
		}
		err := a.save(ctx, next)
		if err == nil {
			a.mem.watch(made.ID)
			return unfit
		}
		if attempt > 0 || a.claim.Reload(ctx) != nil {
			return err
		}
		a.rec = a.claim.Record()
	}
}

// finish tries the candidate, and adopts it, or gives it up. Recovery goes this way
// too, forward: what a late write of another process stores is then the same.
func (a *advance) finish(ctx context.Context) error {
	candidate := a.rec.Candidate
	if candidate == nil {
		return nil
	}
	if err := a.takeGrace(ctx); err != nil {
		return err
	}
	trial, err := a.claim.Try(ctx, *candidate)
	if err == nil {
		defer trial.Close()
		return a.adopt(ctx, trial)
	}
	if !isRefused(err) {
		return fmt.Errorf("trying the new key: %w", err)
	}
	if time.Since(a.mem.watch(candidate.ID)) < candidateTime {
		return a.notKnownYet(err)
	}
	return a.discard(ctx, err)
}

// notKnownYet is the refusal of a new key that is tried again.
func (a *advance) notKnownYet(refused error) error {
	return &waitError{until: a.mem.refusedTrial(), because: fmt.Errorf("the new key is refused, as keys are that are not known everywhere yet: %w", refused)}
}

// takeGrace stores the grace period that the rotation is asked for with, if its
// candidate was made with another one. It is stored before the adoption: a late write of
// this process, and what the next one does, are then the same.
func (a *advance) takeGrace(ctx context.Context) error {
	asked := a.want.grace
	if asked == nil || a.rec.Grace != nil && *a.rec.Grace == *asked {
		return nil
	}
	next := a.rec.clone()
	next.Grace = asked
	return a.save(ctx, next)
}

// adopt makes the candidate the current key. The one that it replaces is retired with
// all that it takes to delete it.
func (a *advance) adopt(ctx context.Context, trial Trial) error {
	grace := a.grace()
	replaced := Retired{Key: *a.rec.Current, Grace: grace}
	if now := a.clock(replaced.Binding); !now.IsZero() && grace > 0 {
		replaced.DeleteAfter = now.Add(grace)
	}
	next := a.rec.clone()
	if a.plan.Kind != KindPlatform || replaced.Managed { // Nobody knows the id of an imported one.
		next.Retired = append(next.Retired, replaced)
	}
	next.Current, next.Candidate, next.Grace = a.rec.Candidate, nil, nil
	if a.plan.Reuse {
		a.adoptToken(ctx, &next, trial)
	}
	if err := a.claim.Adopt(ctx, next, trial); err != nil {
		return &doubtError{err}
	}
	a.out.rotated, a.out.replaced = a.rec.Candidate, a.rec.Current
	a.rec, a.plan = a.claim.Record(), a.claim.Plan()
	a.mem.succeeded()
	a.mem.endTrials(a.rec.Current.ID)
	a.out.wake(a.plan.Due)
	a.observe(Event{Ref: a.ref, Kind: Rotated, KeyID: a.rec.Current.ID})
	return nil
}

// grace is how long the key that is being replaced lives on.
func (a *advance) grace() time.Duration {
	switch {
	case a.want.grace != nil:
		return *a.want.grace
	case a.rec.Grace != nil:
		return *a.rec.Grace
	default:
		return a.plan.Grace
	}
}

// discard gives a candidate up.
func (a *advance) discard(ctx context.Context, why error) error {
	id := a.rec.Candidate.ID
	next := a.rec.clone()
	next.Retired = append(next.Retired, Retired{Key: *a.rec.Candidate})
	next.Candidate, next.Grace = nil, nil
	if err := a.save(ctx, next); err != nil {
		return err
	}
	a.mem.endTrials(id)
	a.observe(Event{Ref: a.ref, Kind: Discarded, KeyID: id, Err: why})
	return &discardedError{why}
}

// discardedError is why a candidate was given up.
type discardedError struct{ error }

func (e *discardedError) Error() string {
	return fmt.Sprintf("the new key got no token within %s and is deleted; the present one stays; rotate again later: %s", candidateTime, e.error)
}

func (e *discardedError) Unwrap() error { return e.error }
