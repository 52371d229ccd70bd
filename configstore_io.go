// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// The methods here are all that reads and changes what is stored of one config or
// tombstone. Their callers hold the lock of its name.

// readTimeout and writeTimeout bound a call of storage, during which its name is
// locked. A write outlives its request.
const (
	readTimeout  = 30 * time.Second
	writeTimeout = time.Minute
)

// storageKey is where a config or a tombstone is stored.
func storageKey(ref rotation.Ref) string {
	if ref.Tombstone != "" {
		return tombstoneStoragePrefix + ref.Config + "/" + ref.Tombstone
	}
	return configStoragePrefix + ref.Config
}

// get reads from storage.
func (s *configStore) get(ctx context.Context, key, doing string) (*logical.StorageEntry, error) {
	if s.closed.Load() {
		return nil, rotation.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	stored, err := s.storage.Get(ctx, key)
	if err != nil {
		return nil, storageError(doing, err)
	}
	return stored, nil
}

// putRecord stores a config or a tombstone, if it may hold the keys that are in it, and tells of
// it as put. The caller holds the name's lock.
func (s *configStore) putRecord(ctx context.Context, put sighting, value any) error {
	if err := s.holders.Reserve(put.ref, *put.record); err != nil {
		return heldError(err)
	}
	entry, err := encode(storageKey(put.ref), value)
	if err != nil {
		return err
	}
	err = s.write(ctx, put.ref, false, func(ctx context.Context) error { return s.storage.Put(ctx, entry) })
	if err != nil {
		return err
	}
	put.doubtful = s.doubts.until(put.ref)
	s.tell(put, false)
	return nil
}

// remove deletes a config or a tombstone. Even if that fails, a config is out of use.
// The caller holds the name's lock.
func (s *configStore) remove(ctx context.Context, ref rotation.Ref) error {
	if ref.Tombstone == "" {
		defer s.drop(ref.Config)
	}
	err := s.write(ctx, ref, true, func(ctx context.Context) error { return s.storage.Delete(ctx, storageKey(ref)) })
	if err != nil {
		return err
	}
	s.tell(sighting{ref: ref, doubtful: s.doubts.until(ref)}, false)
	return nil
}

// write makes a call that changes what is stored under ref. If that fails, it may take
// effect late: the entry in use stays in use and is looked after, and so is the record.
func (s *configStore) write(ctx context.Context, ref rotation.Ref, deletes bool, call func(context.Context) error) error {
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.writes.Done()
	certain := false
	defer func() {
		if !certain { // Be it for a panic.
			s.doubt(ref, deletes)
		}
	}()
	// A call that was sent is waited for: abandoned, it could take effect after a later
	// one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	err := call(ctx)
	certain = err == nil || isReadOnly(err)
	switch {
	case err == nil:
		return nil
	case deletes:
		return storageError("deleting "+ref.String(), err)
	default:
		return storageError("writing "+ref.String(), err)
	}
}

// beginWrite lets a write through that Close waits for, or none after that.
func (s *configStore) beginWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return rotation.ErrClosed
	}
	s.writes.Add(1)
	return nil
}

// found has the holders and the observer know what was read. The caller holds the name's
// lock.
func (s *configStore) found(seen sighting) {
	seen.doubtful = s.doubts.until(seen.ref)
	s.tell(seen, s.isBeingChanged(seen.ref))
}

// tell tells the holders and the observer of a sighting. changing says that somebody may
// be about to store something else.
func (s *configStore) tell(seen sighting, changing bool) {
	switch {
	case changing || !seen.doubtful.IsZero():
		var record rotation.Record
		if seen.record != nil {
			record = *seen.record
		}
		s.holders.Seen(seen.ref, record)
	case seen.record == nil:
		s.holders.Forget(seen.ref)
	default:
		s.holders.Reconcile(seen.ref, *seen.record)
	}
	s.observer(seen)
}

// doubt remembers that a write failed which may still take effect. The entry in use
// stays in use: nothing is deleted at an issuer before a put has succeeded.
func (s *configStore) doubt(ref rotation.Ref, deletion bool) {
	until := s.doubts.add(ref, deletion)
	if e := s.inUse(ref.Config); e != nil && ref.Tombstone == "" {
		e.recheckAt(time.Now())
	}
	s.observer(sighting{ref: ref, doubtful: until})
}

// heldError is a refusal of the holders for the person who writes.
func heldError(err error) error {
	if errors.Is(err, rotation.ErrCondemned) {
		return &userError{text: err.Error()}
	}
	return err
}
