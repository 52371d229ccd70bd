// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

const (
	configStoragePrefix = "config/"

	// tombstoneStoragePrefix is where the record of a deleted config stays until
	// nothing that it names lives at an issuer: deleted/<name>/<uid>-<random>.
	tombstoneStoragePrefix = "deleted/"

	// recheckTimeout bounds the reading of a config that is in use and in doubt.
	// recheckPause is the time between two, and outagePause that after one that failed.
	recheckTimeout = 2 * time.Second
	recheckPause   = time.Second
	outagePause    = 5 * time.Second
)

// configStore owns the configs: it alone touches them in storage, keeps in memory
// those that are in use, and knows who may change their keys.
//
// Readers find a config without waiting for storage. What loads, replaces or removes one holds
// the lock of that name, and no other, across the storage call that goes with it.
type configStore struct {
	storage logical.Storage
	// wire makes the entry of a config. current is a token that its key was
	// already exchanged for, or nil.
	wire    func(name string, c *config, current *tokensource.IssuedToken) (*entry, error)
	holders *rotation.Holders
	// observer is told of each record that was read or stored, under its name's lock. It
	// is set before the store is used.
	observer func(sighting)
	started  time.Time

	entries  entries
	interned interned
	locks    nameLocks
	doubts   doubts
	// closed is set once, under mu. After that nothing is loaded or written; Close waits for
	// the writes already begun.
	closed atomic.Bool
	writes sync.WaitGroup

	mu      sync.Mutex
	claimed map[rotation.Ref]*claim
	// createdHere are the UIDs of the configs that this process created where storage had
	// nothing. It is of interest, and kept, for rotation.LateWriteTime after the start.
	createdHere map[string]bool
}

// sighting is what was found to be stored of a config or tombstone.
type sighting struct {
	ref rotation.Ref
	// record is nil if nothing is stored, or nobody knows what.
	record *rotation.Record
	plan   rotation.Plan
	// revision is that of what is stored: another write has another one.
	revision string
	// doubtful is until when something else may take its place, because a write has
	// failed. It is zero if nothing can.
	doubtful time.Time
}

func newConfigStore(wire func(string, *config, *tokensource.IssuedToken) (*entry, error)) *configStore {
	return &configStore{
		wire:        wire,
		holders:     &rotation.Holders{},
		started:     time.Now(),
		claimed:     make(map[rotation.Ref]*claim),
		createdHere: make(map[string]bool),
	}
}

// Get returns name's entry, or nil if there is no such config. While storage fails,
// the entry that is in use is returned.
func (s *configStore) Get(ctx context.Context, name string) (*entry, error) {
	if e := s.inUse(name); e != nil {
		if !e.isToBeRechecked() {
			return e, nil
		}
		return s.recheck(ctx, name, e)
	}
	if checkName(name) != nil {
		return nil, nil // Storage misreads some of these names.
	}
	unlock, err := s.locks.lockWithin(ctx, name)
	if err != nil {
		return nil, storageError("waiting for config "+name+" to be read", err)
	}
	defer unlock()
	if e := s.inUse(name); e != nil {
		return e, nil
	}
	return s.reload(ctx, name)
}

// recheck reads a config again that is in use though a write has failed which may have
// taken effect. Only the reader who does it waits for storage, and that not for long:
// the others are served what is in use, and so are all while a write is under way.
func (s *configStore) recheck(ctx context.Context, name string, present *entry) (*entry, error) {
	unlock, ok := s.locks.tryLock(name)
	if !ok {
		return present, nil
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, recheckTimeout)
	defer cancel()
	e, err := s.reload(ctx, name)
	if err == nil {
		return e, nil
	}
	if e := s.inUse(name); e != nil {
		e.recheckAt(time.Now().Add(outagePause))
		return e, nil
	}
	return nil, err
}

// discard removes a closed entry that is still in use. That should not happen; if it did,
// its readers would retry for ever.
func (s *configStore) discard(name string, closed *entry) { s.entries.removeIf(name, closed) }

func (s *configStore) inUse(name string) *entry { return s.entries.get(name) }

// reload makes what is stored what is in use. The caller holds name's lock.
func (s *configStore) reload(ctx context.Context, name string) (*entry, error) {
	stored, err := s.load(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.use(name, stored)
}

// use makes a config that was just read the one in use, unless it is. The caller
// holds name's lock.
func (s *configStore) use(name string, stored *config) (*entry, error) {
	if stored == nil {
		s.drop(name)
		return nil, nil
	}
	present := s.inUse(name)
	if present == nil || present.config.Revision != stored.Revision {
		loaded, err := s.wire(name, stored, nil)
		if err != nil {
			return nil, err
		}
		s.install(name, loaded)
		present = loaded
	}
	s.scheduleRecheck(name, present)
	return present, nil
}

// scheduleRecheck has the readers of an entry look again while it is in doubt what is
// stored.
func (s *configStore) scheduleRecheck(name string, e *entry) {
	if s.doubts.until(rotation.Ref{Config: name}).IsZero() {
		e.recheckAt(time.Time{})
		return
	}
	e.recheckAt(time.Now().Add(recheckPause))
}

// install puts an entry in the place of the one in use. The caller holds name's
// lock.
func (s *configStore) install(name string, next *entry) {
	next.watch.used.Store(true)
	next.watch.active.Store(true)
	if kept := next.config.Keys.Token; kept != nil {
		next.watch.tokenID.Store(kept.ID)
	}
	s.scheduleRecheck(name, next)
	if present := s.inUse(name); present != nil {
		next.inherit(present)
	}
	if old := s.entries.put(next); old != nil {
		old.closeUnlessShared(next)
	}
	if s.closed.Load() {
		s.drop(name) // Close may have passed by already.
	}
}

// drop takes an entry out of use. The caller holds name's lock.
func (s *configStore) drop(name string) {
	if old := s.entries.remove(name); old != nil {
		old.close()
	}
}

// List returns the names of all configs.
func (s *configStore) List(ctx context.Context) ([]string, error) {
	names, err := s.storage.List(ctx, configStoragePrefix)
	if err != nil {
		return nil, storageError("listing configs", err)
	}
	return names, nil
}

// refs returns all configs and tombstones.
func (s *configStore) refs(ctx context.Context) ([]rotation.Ref, error) {
	names, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	refs, err := s.listAllTombstones(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		refs = append(refs, rotation.Ref{Config: name})
	}
	return refs, nil
}

// readEach has the holders and the observer know what is stored of each, and puts
// nothing in use: most configs are scheduled and never read. One that cannot be read
// keeps it from no other. It returns those, and the last error.
func (s *configStore) readEach(ctx context.Context, refs []rotation.Ref) (unread []rotation.Ref, last error) {
	for i, ref := range refs {
		if ctx.Err() != nil {
			return append(unread, refs[i:]...), ctx.Err()
		}
		if err := s.read(ctx, ref); err != nil {
			unread, last = append(unread, ref), err
		}
	}
	return unread, last
}

func (s *configStore) read(ctx context.Context, ref rotation.Ref) error {
	defer s.locks.lock(ref.Config)()
	if ref.Tombstone != "" {
		_, err := s.loadTombstone(ctx, ref)
		return err
	}
	_, err := s.load(ctx, ref.Config)
	return err
}

// Stored returns the config as it is stored now, or nil. What is in memory may be
// older: on another node, or after a put that failed and took effect.
func (s *configStore) Stored(ctx context.Context, name string) (*config, error) {
	defer s.locks.lock(name)()
	return s.load(ctx, name)
}

// sharedToken is the token that name's readers share under the stored config, or
// nil.
func (s *configStore) sharedToken(name string, stored *config) *tokensource.IssuedToken {
	present := s.inUse(name)
	if present == nil || stored == nil || !sameRevision(present.config, stored) {
		return nil
	}
	return present.source.Current()
}

// deleteUnreadable deletes a config of which nobody knows what is stored.
func (s *configStore) deleteUnreadable(ctx context.Context, name string) error {
	defer s.locks.lock(name)()
	ref := rotation.Ref{Config: name}
	if held := s.claimOf(ref); held != nil {
		return held.conflict()
	}
	return s.remove(ctx, ref)
}

// Update replaces the config that prev was read from by next's, provided that it
// is still stored and nobody is changing its key. prev is nil for a creation. kept is
// a token that stays shared unless it was revoked meanwhile, or nil. On failure the
// entry in use stays in use, and next is the caller's to close.
func (s *configStore) Update(ctx context.Context, name string, prev *config, next *entry, kept *tokensource.IssuedToken) error {
	defer s.locks.lock(name)()
	ref := rotation.Ref{Config: name}
	if held := s.obstacle(ref); held != nil {
		return held.conflict()
	}
	present, err := s.load(ctx, name)
	if err != nil {
		return err
	}
	if !sameRevision(present, prev) {
		return overtaken(name, prev)
	}
	createdHere, err := s.isCreatedHere(ctx, name, prev)
	if err != nil {
		return err
	}
	if createdHere {
		s.noteCreatedHere(next.config)
	}
	if err := s.put(ctx, name, next.config); err != nil {
		return err
	}
	if kept != nil && !s.shares(name, kept.ID) {
		next.source.Drop(kept.ID)
	}
	s.install(name, next)
	return nil
}

// shares says whether name's readers get the token called id.
func (s *configStore) shares(name, id string) bool {
	present := s.inUse(name)
	if present == nil {
		return false
	}
	token := present.source.Current()
	return token != nil && token.ID == id
}

// DropToken ends the sharing of a token that was revoked. It needs neither storage
// nor network.
func (s *configStore) DropToken(name, id string) {
	defer s.locks.lock(name)()
	if e := s.inUse(name); e != nil {
		e.drop(id)
	}
}

// Invalidate drops what is in memory of a config that another node wrote.
func (s *configStore) Invalidate(name string) {
	defer s.locks.lock(name)()
	s.drop(name)
}

// Close waits for the writes that are under way, has nobody write any more, and takes
// everything out of use.
func (s *configStore) Close() {
	s.mu.Lock()
	s.closed.Store(true)
	s.mu.Unlock()
	s.writes.Wait()
	for _, name := range s.entries.names() {
		s.Invalidate(name)
	}
}

// load returns a stored config, or nil if there is none, and tells of it. An entry that
// is in use and turns out to be another one is replaced. The caller holds name's lock.
func (s *configStore) load(ctx context.Context, name string) (*config, error) {
	ref := rotation.Ref{Config: name}
	stored, err := s.get(ctx, configStoragePrefix+name, "reading config "+name)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		s.drop(name)
		s.found(sighting{ref: ref})
		return nil, nil
	}
	c, err := decodeConfig(name, stored.Value)
	if err != nil {
		return nil, err
	}
	s.interned.intern(c)
	if s.inUse(name) != nil {
		if _, err := s.use(name, c); err != nil {
			s.drop(name) // The next reader is told why.
		}
	}
	s.found(sighting{ref: ref, record: &c.Keys, plan: s.planOf(c), revision: c.Revision})
	return c, nil
}

// put stores a config. Whatever becomes of it, what is in memory stays as it is; the
// caller holds name's lock.
func (s *configStore) put(ctx context.Context, name string, c *config) error {
	return s.putRecord(ctx, sighting{ref: rotation.Ref{Config: name}, record: &c.Keys, plan: s.planOf(c), revision: c.Revision}, c)
}

// isCreatedHere says whether a write creates a config where nothing of that name was ever
// stored that a write of an earlier process could bring back.
func (s *configStore) isCreatedHere(ctx context.Context, name string, prev *config) (bool, error) {
	if prev != nil || s.isPastLateWrites() {
		return false, nil // Nobody asks.
	}
	graves, err := s.listTombstones(ctx, name)
	return len(graves) == 0, err
}

// isPastLateWrites says whether no write of a process before this one can take effect any more.
func (s *configStore) isPastLateWrites() bool { return time.Since(s.started) > rotation.LateWriteTime }

func (s *configStore) noteCreatedHere(c *config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.createdHere != nil {
		s.createdHere[c.Keys.UID] = true
	}
}

// planOf is what a config's settings say about its rotation.
func (s *configStore) planOf(c *config) rotation.Plan {
	s.mu.Lock()
	if s.isPastLateWrites() {
		s.createdHere = nil
	}
	createdHere := s.createdHere[c.Keys.UID]
	s.mu.Unlock()
	plan := c.plan()
	plan.Fresh = createdHere
	return plan
}

// decodeConfig refuses what this build does not know. A field that is missing in what is
// stored gets zero, and not its default. Errors do not quote what is stored.
func decodeConfig(name string, stored []byte) (*config, error) {
	var c config
	err := json.Unmarshal(stored, &c)
	// The schema is stored first, and is known even if what follows has another form.
	if c.Schema > configSchema {
		return nil, &unreadableError{fmt.Sprintf("config %q was stored by a newer version of the plugin (schema %d, this build knows %d); run that version again", name, c.Schema, configSchema)}
	}
	if err != nil || c.Keys.Current == nil {
		// The decoder's error may quote what it could not decode.
		return nil, &unreadableError{fmt.Sprintf("stored config %q cannot be decoded", name)}
	}
	c.APIKey = string(c.Keys.Current.Value)
	return &c, nil
}
