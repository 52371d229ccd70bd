// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// claim is the exclusive right to change one config's key, or one tombstone. While
// somebody has it, the config can be neither written nor deleted.
type claim struct {
	store *configStore
	ref   rotation.Ref
	why   string
	// released is closed when somebody else may have the claim.
	released chan struct{}
	// stored is the config as it was last read or saved, nil for a tombstone, whose
	// record is all there is of it.
	stored   *config
	record   rotation.Record
	revision string
	// changing is set, under the store's lock, when the record was read: from then on its
	// holder may be about to store what the Holders know already.
	changing bool
}

// writeWait is how long the write of a config waits for a step of its rotation to end.
const writeWait = 5 * time.Second

// whyDeleted is why a deletion has a claim.
const whyDeleted = "deleted"

// trial is an entry of the config as it would be with a candidate for its key.
type trial struct {
	*entry
	token   rotation.Token
	adopted bool
}

// Token implements rotation.Trial.
func (t *trial) Token() rotation.Token { return t.token }

// isOf says whether the trial is the one that a record came of.
func (t *trial) isOf(next rotation.Record) bool {
	if t.config.renews() {
		return next.Token != nil && next.Token.Value == t.token.Value
	}
	return t.config.APIKey == string(next.Current.Value)
}

// Close implements rotation.Trial.
func (t *trial) Close() {
	if !t.adopted {
		t.close()
	}
}

// Claim implements rotation.Store.
func (s *configStore) Claim(ctx context.Context, ref rotation.Ref, why string) (rotation.Claim, error) {
	c, err := s.claim(ctx, ref, why)
	if err != nil {
		return nil, err // Not c, which would be an interface that is not nil.
	}
	return c, nil
}

func (s *configStore) claim(ctx context.Context, ref rotation.Ref, why string) (*claim, error) {
	c := &claim{store: s, ref: ref, why: why, released: make(chan struct{})}
	if held := s.register(c); held != nil {
		return nil, &rotation.ClaimedError{Ref: ref, Why: held.why}
	}
	loaded := false
	defer func() {
		if !loaded { // Be it for a panic.
			c.Release()
		}
	}()
	if err := c.Reload(ctx); err != nil {
		return nil, err
	}
	loaded = true
	s.mu.Lock()
	defer s.mu.Unlock()
	c.changing = true
	return c, nil
}

// claimForDeletion is claim that waits until another holder has released it.
func (s *configStore) claimForDeletion(ctx context.Context, ref rotation.Ref) (*claim, error) {
	for {
		c, err := s.claim(ctx, ref, whyDeleted)
		var claimed *rotation.ClaimedError
		if !errors.As(err, &claimed) {
			return c, err
		}
		held := s.claimOf(ref)
		if held == nil {
			continue // It was released just now.
		}
		if !held.awaitRelease(ctx) {
			return nil, held.conflict()
		}
	}
}

// awaitRelease waits until the claim is released, and says whether ctx has lasted.
func (c *claim) awaitRelease(ctx context.Context) bool {
	select {
	case <-c.released:
		return true
	case <-ctx.Done():
		return false
	}
}

// awaitClaim waits until name's claim is released, for writeWait at most: a step of a
// rotation takes moments as a rule, and a client that writes meanwhile would have to try
// again.
func (s *configStore) awaitClaim(ctx context.Context, name string) {
	held := s.claimOf(rotation.Ref{Config: name})
	if held == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	held.awaitRelease(ctx)
}

// register makes c the claim on its record, or returns the claim that is in its way. It
// takes its turn with writes of the config: one that was prepared before finds the claim,
// and stores nothing.
func (s *configStore) register(c *claim) (held *claim) {
	defer s.locks.lock(c.ref.Config)()
	held = s.claimOf(c.ref)
	if held == nil && c.why != whyDeleted {
		held = s.pendingWrite(c.ref)
	}
	if held != nil {
		return held
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claimed[c.ref] = c
	return nil
}

// obstacle is the claim that keeps others from changing what is stored under ref, or
// nil. While a deletion that failed may take effect, it is as if that had the claim still:
// what is written could be lost. The caller holds the name's lock.
func (s *configStore) obstacle(ref rotation.Ref) *claim {
	if held := s.claimOf(ref); held != nil {
		return held
	}
	if s.doubts.isDeletion(ref) {
		return s.pendingWrite(ref)
	}
	return nil
}

// pendingWrite is a claim that stands for a write which failed, while that may still take
// effect: what a rotation stores meanwhile could be overwritten. It is nil if there is no
// such write.
func (s *configStore) pendingWrite(ref rotation.Ref) *claim {
	switch {
	case s.doubts.until(ref).IsZero():
		return nil
	case s.doubts.isDeletion(ref):
		return &claim{ref: ref, why: whyDeleted}
	default:
		return &claim{ref: ref, why: "reconciled, because an earlier write of it failed and may still take effect"}
	}
}

func (s *configStore) claimOf(ref rotation.Ref) *claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claimed[ref]
}

// isBeingChanged says whether somebody who has a claim may be about to store a change.
func (s *configStore) isBeingChanged(ref rotation.Ref) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.claimed[ref]
	return held != nil && held.changing
}

// conflict is what somebody is told who comes in the claim's way.
func (c *claim) conflict() error {
	return logical.CodedError(http.StatusConflict, fmt.Sprintf("config %q is being %s; nothing was changed: try again when that has ended", c.ref.Config, c.why))
}

// Release implements rotation.Claim.
func (c *claim) Release() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	delete(c.store.claimed, c.ref)
	close(c.released)
}

// Record implements rotation.Claim.
func (c *claim) Record() rotation.Record { return c.record }

// Plan implements rotation.Claim.
func (c *claim) Plan() rotation.Plan {
	if c.stored == nil {
		return rotation.Plan{}
	}
	return c.store.planOf(c.stored)
}

// Reload implements rotation.Claim.
func (c *claim) Reload(ctx context.Context) error {
	defer c.store.locks.lock(c.ref.Config)()
	if c.ref.Tombstone != "" {
		return c.reloadTombstone(ctx)
	}
	stored, err := c.store.load(ctx, c.ref.Config)
	if err != nil {
		return err
	}
	if stored == nil {
		return rotation.ErrNoRecord
	}
	c.stored, c.record = stored, stored.Keys
	return nil
}

// Save implements rotation.Claim.
func (c *claim) Save(ctx context.Context, next rotation.Record) error {
	if c.ref.Tombstone != "" {
		return c.saveTombstone(ctx, next)
	}
	return c.save(ctx, next, func(stored *config) *entry {
		present := c.store.inUse(c.ref.Config)
		if present == nil {
			return nil // The next reader loads what was stored.
		}
		return present.with(stored)
	})
}

// Adopt implements rotation.Claim.
func (c *claim) Adopt(ctx context.Context, next rotation.Record, t rotation.Trial) error {
	tried, ok := t.(*trial)
	if !ok || next.Current == nil || !tried.isOf(next) {
		return errors.New("the adopted key is not the one that was tried")
	}
	return c.save(ctx, next, func(stored *config) *entry {
		tried.adopted = true
		return tried.with(stored)
	})
}

// save stores the config with its next record and then makes the entry that it is
// given the one in use. To find the claim's revision stored is also to have it in use.
func (c *claim) save(ctx context.Context, next rotation.Record, entryOf func(*config) *entry) error {
	name := c.ref.Config
	defer c.store.locks.lock(name)()
	present, err := c.store.load(ctx, name)
	if err != nil {
		return err
	}
	if !sameRevision(present, c.stored) {
		return rotation.ErrConflict
	}
	stored := c.stored.withKeys(next)
	if err := c.store.put(ctx, name, stored); err != nil {
		return err
	}
	c.stored, c.record = stored, next
	if fresh := entryOf(stored); fresh != nil {
		c.store.install(name, fresh)
	}
	return nil
}

// Try implements rotation.Claim.
func (c *claim) Try(ctx context.Context, candidate rotation.Key) (rotation.Trial, error) {
	if c.stored == nil {
		return nil, errors.New("a deleted config has no use for a key")
	}
	keys := c.record
	keys.Current = &candidate
	fresh, err := c.store.wire(c.ref.Config, c.stored.withKeys(keys), nil)
	if err != nil {
		return nil, err
	}
	tried := &trial{entry: fresh}
	worked := false
	defer func() {
		if !worked { // Be it for a panic.
			tried.Close()
		}
	}()
	if err := fresh.source.Replace(ctx); err != nil {
		return nil, err
	}
	worked = true
	tried.token = tried.currentToken()
	return tried, nil
}

// bury deletes the config and leaves a tombstone for what of its keys is to be
// deleted at an issuer. It returns the tombstone's name, or none if nothing is left
// to do. The tombstone comes first: without it nobody would have the right to delete
// the keys. If the config then turns out to be still stored, its tombstone is void.
func (c *claim) bury(ctx context.Context) (grave rotation.Ref, err error) {
	name := c.ref.Config
	defer c.store.locks.lock(name)()
	if remains := c.record.Bury(); !remains.Empty() {
		grave = rotation.Ref{Config: name, Tombstone: c.record.NewTombstone()}
		if err := c.store.putTombstone(ctx, grave, newTombstone(remains)); err != nil {
			return rotation.Ref{}, err
		}
	}
	if err := c.store.remove(ctx, c.ref); err != nil {
		return rotation.Ref{}, err
	}
	return grave, nil
}
