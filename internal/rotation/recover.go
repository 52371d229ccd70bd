// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// lose has a creation whose answer nobody has looked for, and goes on without it.
// The process that asked for the key may still be alive; what it stores then names the key.
func (a *advance) lose(ctx context.Context) error {
	intent := a.rec.Intent
	if intent == nil {
		return nil
	}
	next := a.rec.clone()
	next.Intent, next.Grace = nil, nil
	next.Retired = append(next.Retired, Retired{Key: Key{
		Name: a.rec.namePrefixOf(*intent), Binding: intent.Binding, Managed: true, CreatedAt: intent.Since,
	}})
	return a.save(ctx, next.tidy())
}

// lookFor finds out what came of a creation whose answer nobody has: a key that is
// found is to be deleted, for its value is lost. That there is none is believed only
// after this process has watched for as long as it may take to be seen; a caller who wanted
// it may be another process, still alive, with another clock.
func (a *advance) lookFor(ctx context.Context, session Session, k Retired) error {
	watched := time.Since(a.mem.watch(k.label()))
	listed, err := session.Find(ctx, k.Name, k.Binding)
	if err != nil {
		return err
	}
	next := a.rec.clone()
	next.Retired = slices.DeleteFunc(next.Retired, k.isSame)
	var found []Retired
	for _, d := range listed {
		if err := a.checkDiscretion(d); err != nil {
			return err
		}
		one := k
		one.ID, one.Name, one.CreatedAt, one.ExpiresAt = d.ID, d.Name, createdAt(d, session), d.ExpiresAt
		if d.isOf(k.Binding) && !next.knows(d.ID) && !a.mem.isGone(one.label()) {
			found = append(found, one)
		}
	}
	if len(found) == 0 && watched < agreeTime {
		return waitUntil(time.Now().Add(min(agreeTime-watched, maxTrialWait/4)), "the issuer may still get to know a key whose creation it has not answered")
	}
	if len(found) > MaxRetired { // Each would be stored, with all that its deletion takes.
		return refusef("the issuer lists %d keys for the one creation that was asked of it for %s; look at them there", len(found), a.ref)
	}
	next.Retired = append(next.Retired, found...)
	if err := a.save(ctx, next.tidy()); err != nil {
		return err
	}
	a.mem.unwatch(k.label())
	for _, one := range found {
		a.observe(Event{Ref: a.ref, Kind: Recovered, KeyID: one.ID})
		a.out.wake(time.Now())
	}
	return nil
}

// rejectStrangers fails if the issuer has keys that carry the record's UID and are not in
// it. Then the record is older than they: it was restored from a snapshot, here or on
// another cluster, and is not to be acted upon.
func (a *advance) rejectStrangers(ctx context.Context, session Session, of Binding) error {
	listed, err := session.Find(ctx, a.rec.prefix(), of)
	if err != nil {
		return err
	}
	var strangers []string
	for _, d := range listed {
		if err := a.checkDiscretion(d); err != nil {
			return err
		}
		label := Retired{Key: Key{ID: d.ID, Binding: of}}.label()
		switch {
		case !d.isOf(of) || a.rec.knows(d.ID) || a.rec.hasLost(d.Name) || a.mem.isGone(label):
		case time.Since(a.mem.watch(label)) < agreeTime:
			return waitUntil(time.Now().Add(maxTrialWait/4), "the issuer's list has a key that another process may have deleted just now")
		default:
			strangers = append(strangers, d.ID)
		}
	}
	if strangers != nil {
		return refusef("the issuer has keys made for %s of which Vault knows nothing (%s): the config was restored from a snapshot that is older, or another Vault cluster that was restored from one rotates the same key; if no other cluster uses them, delete them at the issuer; else write another api_key here", a.ref, strings.Join(strangers, ", "))
	}
	return nil
}

// hasLost says whether a name is that of a key which is looked for.
func (r Record) hasLost(name string) bool {
	return slices.ContainsFunc(r.Retired, func(k Retired) bool { return k.isLost() && strings.HasPrefix(name, k.Name) })
}

// checkDiscretion refuses a description that gives the value of one of the record's keys
// away: ids are logged, and told to anyone who may read a config. A session looks for the key
// alone that it was opened with.
func (a *advance) checkDiscretion(d Details) error {
	if !a.rec.IsDiscreet(a.plan, d.ID, d.AccountID, d.Identity) {
		return refusef("the id of a key of %s or of its owner, as the issuer has it, contains part of a secret", a.ref)
	}
	return nil
}

// exhume looks whether the deletion of a config took place that has left a tombstone.
// If it did not, the config is the record, and the tombstone goes. That the config is
// still there is only believed once it was written.
func (a *advance) exhume(ctx context.Context) (gone bool, err error) {
	if at := a.lateWritesEndAt(); !at.IsZero() {
		return false, waitUntil(at, "a late write may still store the config")
	}
	config, err := a.store.Claim(ctx, Ref{Config: a.rec.Config}, "compared with what its deletion left")
	var claimed *ClaimedError
	switch {
	case errors.Is(err, ErrNoRecord):
		return false, nil
	case errors.As(err, &claimed):
		return false, &waitError{until: time.Now().Add(claimedWait), because: err}
	case err != nil:
		return false, &doubtError{err}
	}
	defer config.Release()
	if config.Record().UID != a.rec.UID {
		return false, nil
	}
	if err := config.Save(ctx, config.Record()); err != nil {
		return false, &doubtError{err}
	}
	if err := a.claim.Remove(ctx); err != nil {
		return false, &doubtError{err}
	}
	return true, nil
}

// createdAt is the issuer's word, or its clock's if it does not say.
func createdAt(d Details, session Session) time.Time {
	if d.CreatedAt.IsZero() {
		return session.Now()
	}
	return d.CreatedAt
}
