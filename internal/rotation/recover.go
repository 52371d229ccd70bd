// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// recoverIntent finds out what came of a creation whose answer nobody has: a key that
// is found is to be deleted, for its value is lost. That there is none is believed only
// after this process has watched the intent for as long as it may take to be seen;
// whoever stored it may be another process, still alive, with another clock.
func (a *advance) recoverIntent(ctx context.Context) error {
	intent := *a.rec.Intent
	watched := time.Since(a.mem.watch(intent.Token))
	session, err := a.rightOf(ctx, Retired{Key: Key{Binding: intent.Binding}})
	if err != nil {
		return fmt.Errorf("looking for the key of an interrupted rotation: %w", err)
	}
	found, err := a.find(ctx, session, intent.Binding)
	if err != nil {
		return fmt.Errorf("looking for the key of an interrupted rotation: %w", err)
	}
	if len(found) == 0 && watched < agreeTime {
		return waitUntil(time.Now().Add(min(agreeTime-watched, maxTrialWait/4)), "an interrupted rotation may still create a key at the issuer")
	}
	next := a.rec.clone()
	next.Intent, next.Grace = nil, nil
	for _, d := range found {
		next.Retired = append(next.Retired, Retired{Key: Key{
			ID: d.ID, Name: d.Name, Binding: intent.Binding, Managed: true, CreatedAt: createdAt(d, session),
		}})
	}
	if err := a.save(ctx, next.tidy()); err != nil {
		return err
	}
	a.mem.unwatch(intent.Token)
	for _, d := range found {
		a.observe(Event{Ref: a.ref, Kind: Recovered, KeyID: d.ID})
	}
	return nil
}

// find returns the keys that were made for the record's intent, and fails if there are
// others that carry the record's UID and are not in it. Then the record is older than
// they: it was restored from a snapshot, here or on another cluster, and is not to be
// acted upon. It fails too if there are more than one creation can have made: each would
// be stored, with all that its deletion takes.
func (a *advance) find(ctx context.Context, session Session, of Binding) ([]Details, error) {
	listed, err := session.Find(ctx, a.rec.prefix(), of)
	if err != nil {
		return nil, err
	}
	var found []Details
	var strangers []string
	for _, d := range listed {
		if err := a.checkDiscretion(d); err != nil {
			return nil, err
		}
		label := Retired{Key: Key{ID: d.ID, Binding: of}}.label()
		switch {
		case d.AccountID != of.AccountID || d.Identity != of.Identity || a.rec.knows(d.ID) || a.mem.isGone(label):
		case a.rec.Intent != nil && strings.HasPrefix(d.Name, a.rec.namePrefixOf(*a.rec.Intent)):
			found = append(found, d)
		case time.Since(a.mem.watch(label)) < agreeTime:
			return nil, waitUntil(time.Now().Add(maxTrialWait/4), "the issuer's list has a key that another process may have deleted just now")
		default:
			strangers = append(strangers, d.ID)
		}
	}
	if strangers != nil {
		return nil, refusef("the issuer has keys made for %s of which Vault knows nothing (%s): the config was restored from a snapshot that is older, or another Vault cluster that was restored from one rotates the same key; if no other cluster uses them, delete them at the issuer; else write another api_key here", a.ref, strings.Join(strangers, ", "))
	}
	if len(found) > maxRetired {
		return nil, refusef("the issuer lists %d keys for the one creation that was asked of it for %s; look at them there", len(found), a.ref)
	}
	return found, nil
}

// checkDiscretion refuses a description that gives the value of one of the record's keys
// away: ids are logged, and told to whoever may read a config. A session looks for the key
// alone that it was opened with.
func (a *advance) checkDiscretion(d Details) error {
	if upstream.HoldsAny(d.ID+" "+d.AccountID+" "+d.Identity, a.rec.values()...) {
		return refusef("the issuer names a key of %s, or whose it is, by what gives the value of a key away", a.ref)
	}
	return nil
}

// exhume looks whether the deletion of a config took place that has left a tombstone.
// If it did not, the config is the record, and the tombstone goes. That the config is
// still there is only believed once it was written.
func (a *advance) exhume(ctx context.Context) (gone bool, err error) {
	if at := a.settlesAt(); !at.IsZero() {
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
