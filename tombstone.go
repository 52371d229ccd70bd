// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// tombstone is what is stored of a deleted config, until nothing that it names
// lives at an issuer: the keys, with what it takes to delete them.
type tombstone struct {
	Schema int             `json:"schema"`
	Keys   rotation.Record `json:"keys"`
	// Revision is another one for each write.
	Revision string `json:"revision"`
}

// newRevision returns a revision that no other write has.
func newRevision() string { return rand.Text() }

// listTombstones returns the tombstones of one name.
func (s *configStore) listTombstones(ctx context.Context, name string) ([]rotation.Ref, error) {
	uids, err := s.storage.List(ctx, tombstoneStoragePrefix+name+"/")
	if err != nil {
		return nil, storageError("listing deleted configs", err)
	}
	var refs []rotation.Ref
	for _, uid := range uids {
		refs = append(refs, rotation.Ref{Config: name, Tombstone: uid})
	}
	return refs, nil
}

// listAllTombstones returns the tombstones of all names.
func (s *configStore) listAllTombstones(ctx context.Context) ([]rotation.Ref, error) {
	folders, err := s.storage.List(ctx, tombstoneStoragePrefix)
	if err != nil {
		return nil, storageError("listing deleted configs", err)
	}
	var refs []rotation.Ref
	for _, folder := range folders {
		of, err := s.listTombstones(ctx, strings.TrimSuffix(folder, "/"))
		if err != nil {
			return nil, err
		}
		refs = append(refs, of...)
	}
	return refs, nil
}

// loadTombstone returns a stored tombstone, or nil. The caller holds the name's lock.
func (s *configStore) loadTombstone(ctx context.Context, ref rotation.Ref) (*tombstone, error) {
	stored, err := s.get(ctx, storageKey(ref), "reading what is left of "+ref.String())
	if err != nil {
		return nil, err
	}
	if stored == nil {
		s.found(sighting{ref: ref})
		return nil, nil
	}
	var t tombstone
	if err := json.Unmarshal(stored.Value, &t); err != nil || t.Schema > configSchema {
		return nil, &unreadableError{fmt.Sprintf("what is left of the %s cannot be decoded", ref)}
	}
	s.found(sighting{ref: ref, record: &t.Keys, revision: t.Revision})
	return &t, nil
}

// putTombstone stores a tombstone. The caller holds the name's lock.
func (s *configStore) putTombstone(ctx context.Context, ref rotation.Ref, t *tombstone) error {
	return s.putRecord(ctx, sighting{ref: ref, record: &t.Keys, revision: t.Revision}, t)
}

func newTombstone(keys rotation.Record) *tombstone {
	return &tombstone{Schema: configSchema, Keys: keys, Revision: newRevision()}
}

// reloadTombstone is Reload of a claim on a tombstone. The caller holds the name's
// lock.
func (c *claim) reloadTombstone(ctx context.Context) error {
	stored, err := c.store.loadTombstone(ctx, c.ref)
	if err != nil {
		return err
	}
	if stored == nil {
		return rotation.ErrNoRecord
	}
	c.record, c.revision = stored.Keys, stored.Revision
	return nil
}

// saveTombstone is Save of a claim on a tombstone.
func (c *claim) saveTombstone(ctx context.Context, next rotation.Record) error {
	defer c.store.locks.lock(c.ref.Config)()
	present, err := c.store.loadTombstone(ctx, c.ref)
	if err != nil {
		return err
	}
	if present == nil || present.Revision != c.revision {
		return rotation.ErrConflict
	}
	t := newTombstone(next)
	if err := c.store.putTombstone(ctx, c.ref, t); err != nil {
		return err
	}
	c.record, c.revision = next, t.Revision
	return nil
}

// Remove implements rotation.Claim.
func (c *claim) Remove(ctx context.Context) error {
	defer c.store.locks.lock(c.ref.Config)()
	return c.store.remove(ctx, c.ref)
}

// tombstoneRecord returns what is left of a deleted config, or nil.
func (s *configStore) tombstoneRecord(ctx context.Context, ref rotation.Ref) (*rotation.Record, error) {
	defer s.locks.lock(ref.Config)()
	t, err := s.loadTombstone(ctx, ref)
	if t == nil {
		return nil, err
	}
	return &t.Keys, nil
}

// encode is StorageEntryJSON whose error quotes nothing.
func encode(key string, value any) (*logical.StorageEntry, error) {
	entry, err := logical.StorageEntryJSON(key, value)
	if err != nil {
		return nil, fmt.Errorf("the entry %s cannot be encoded", key)
	}
	return entry, nil
}
