// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/iam"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	keyWALKind = "api_key"

	// walMinAge keeps the framework's own rollback away from rotations under way,
	// which end sooner; see rotationTimeout.
	walMinAge = 5 * time.Minute

	// creationSettles is how long after its announcement a key may still turn up at
	// IAM of which nothing is known: a request takes its time, and so do IAM's lists.
	creationSettles = creationTimeout + 90*time.Second

	// refusedForGood is how long a clean-up that IAM refuses is tried again.
	refusedForGood = 24 * time.Hour
)

// keyWAL is the write-ahead entry of a key that is only to live at IAM if it is
// the one that its config stores. It has what it takes to find the key, and never
// the key.
type keyWAL struct {
	Config    string `json:"config"`
	IAMID     string `json:"iam_id"`
	AccountID string `json:"account_id"`
	// KeyName was chosen before the key was created. KeyID is empty until IAM has
	// told it.
	KeyName string `json:"key_name,omitempty"`
	KeyID   string `json:"key_id,omitempty"`
	// Replaces is the id of the key that dies once this one is stored.
	Replaces string    `json:"replaces,omitempty"`
	Since    time.Time `json:"since"`
}

// unsettledError says that an entry's key is not to be found and may yet appear.
type unsettledError struct{ wait time.Duration }

func (e *unsettledError) Error() string {
	return fmt.Sprintf("an interrupted rotation may still create a key at IAM; try again in %d s", e.wait/time.Second+1)
}

func (w *keyWAL) key() string {
	if w.KeyID != "" {
		return w.KeyID
	}
	return w.KeyName
}

// storedWAL is an entry with its place in storage.
type storedWAL struct {
	keyWAL
	id string
}

// pendingWAL returns the write-ahead entries of one config, or of all if name is
// empty. One that cannot be read as such must not stand in the way of the others.
func (b *backend) pendingWAL(ctx context.Context, s logical.Storage, name string) ([]storedWAL, error) {
	ids, err := framework.ListWAL(ctx, s)
	if err != nil {
		return nil, storageError("listing write-ahead entries", err)
	}
	var pending []storedWAL
	for _, id := range ids {
		// framework.GetWAL does not tell an entry that is broken from storage that is.
		stored, err := s.Get(ctx, framework.WALPrefix+id)
		if err != nil {
			return nil, storageError("reading a write-ahead entry", err)
		}
		if stored == nil {
			continue
		}
		w, err := parseKeyWAL(stored.Value)
		if err != nil {
			b.Logger().Error("a write-ahead entry is passed over; look for keys at IAM whose names begin with vault-apic-", "entry", id, "reason", err)
			continue
		}
		if w != nil && (name == "" || w.Config == name) {
			pending = append(pending, storedWAL{keyWAL: *w, id: id})
		}
	}
	return pending, nil
}

// parseKeyWAL reads what framework.PutWAL stored. It is nil for an entry of another
// kind.
func parseKeyWAL(stored []byte) (*keyWAL, error) {
	var entry struct {
		Kind string  `json:"type"`
		Data *keyWAL `json:"data"`
	}
	if err := json.Unmarshal(stored, &entry); err != nil {
		return nil, errors.New("it cannot be decoded")
	}
	if entry.Kind != keyWALKind {
		return nil, nil
	}
	if entry.Data == nil || entry.Data.Config == "" || entry.Data.key() == "" {
		return nil, errors.New("it names no key")
	}
	return entry.Data, nil
}

// putWAL announces a key. The returned function takes the announcement back; if
// it fails, the entry will be found to have nothing left to do.
func putWAL(ctx context.Context, s logical.Storage, w *keyWAL) (clear func(context.Context), err error) {
	id, err := framework.PutWAL(ctx, s, keyWALKind, w)
	if id == "" {
		return nil, storageError("announcing a key", err)
	}
	clear = func(ctx context.Context) { _ = framework.DeleteWAL(ctx, s, id) }
	if err != nil {
		clear(ctx)
		return nil, storageError("announcing a key", err)
	}
	return clear, nil
}

// walRollback settles what a crash, or IAM's absence, left behind.
func (b *backend) walRollback(ctx context.Context, req *logical.Request, kind string, data any) error {
	stored, err := json.Marshal(framework.WALEntry{Kind: kind, Data: data})
	if err != nil {
		return errors.New("a write-ahead entry cannot be encoded")
	}
	w, err := parseKeyWAL(stored)
	if err != nil {
		return err
	}
	if w == nil {
		return errors.New("a write-ahead entry is of an unknown kind")
	}
	if change := b.changes.of(w.Config); change != nil {
		return change.conflict(w.Config)
	}
	return b.settleByStoredKey(ctx, req.Storage, w)
}

// initialize settles in the background what a crash left behind, so that it need
// not wait for its turn in the rollback.
func (b *backend) initialize(_ context.Context, req *logical.InitializationRequest) error {
	if !b.WriteSafeReplicationState() {
		return nil
	}
	go b.settleAll(req.Storage)
	return nil
}

// settleAll settles what can be settled now. The next tick sees to the rest.
func (b *backend) settleAll(s logical.Storage) {
	defer b.logPanic("settling interrupted rotations")
	ctx, cancel := context.WithTimeout(b.loaded, rotationTimeout)
	defer cancel()
	pending, err := b.pendingWAL(ctx, s, "")
	if err != nil {
		b.unsettled.Store(true)
		b.Logger().Warn("interrupted rotations are left for later", "reason", err)
		return
	}
	for _, w := range pending {
		if b.changes.of(w.Config) != nil {
			continue // It settles the entry itself.
		}
		if err := b.settleStored(ctx, s, w); err != nil {
			b.unsettled.Store(true)
			b.Logger().Debug("an interrupted rotation is left for later", "config", w.Config, "reason", err)
		}
	}
}

// settleConfig settles all entries of one config, whose key is about to change.
// It makes no call out if there are none. While a change of the key is under way,
// it alone, which is then mine, may settle: the entries may be its own.
func (b *backend) settleConfig(ctx context.Context, s logical.Storage, name string, mine *keyChange) error {
	pending, err := b.pendingWAL(ctx, s, name)
	if err != nil {
		return err
	}
	// Asked after the entries were listed, so that none is of a change that began since.
	if change := b.changes.of(name); change != mine {
		return change.conflict(name)
	}
	var waiting error
	for _, w := range pending {
		err := b.settleStored(ctx, s, w)
		var unsettled *unsettledError
		switch {
		case errors.As(err, &unsettled):
			waiting = err // The others need not wait for it.
		case err != nil:
			return err
		}
	}
	return waiting
}

func (b *backend) settleStored(ctx context.Context, s logical.Storage, w storedWAL) error {
	if err := b.settleByStoredKey(ctx, s, &w.keyWAL); err != nil {
		return err
	}
	if err := framework.DeleteWAL(ctx, s, w.id); err != nil {
		return storageError("clearing a write-ahead entry", err)
	}
	return nil
}

// settleByStoredKey settles an entry with the rights of the key that is stored.
func (b *backend) settleByStoredKey(ctx context.Context, s logical.Storage, w *keyWAL) error {
	stored, err := loadConfig(ctx, s, w.Config)
	if err != nil {
		return err
	}
	if stored == nil {
		b.Logger().Error("a key that rotation made may be left at IAM, and its config is gone; delete it there", "config", w.Config, "key", w.key())
		return nil
	}
	session, done, err := b.loginToIAM(ctx, stored)
	if err == nil {
		defer done()
		err = settle(ctx, session, stored, w)
	}
	if isRefused(err) && time.Since(w.Since) > refusedForGood {
		b.Logger().Error("a key could not be deleted at IAM and is given up; delete it there", "config", w.Config, "key", w.key(), "replaces", w.Replaces, "reason", err)
		return nil
	}
	return err
}

// settle makes an entry true: its key lives at IAM only if it is the one that is
// stored, and then the key that it replaces does not.
func settle(ctx context.Context, session *iam.Session, stored *config, w *keyWAL) error {
	found, err := w.find(ctx, session)
	if err != nil {
		return err
	}
	for _, id := range found {
		if id == stored.APIKeyID {
			id = w.Replaces
		}
		if id == "" {
			continue
		}
		if err := session.Delete(ctx, id); err != nil {
			return fmt.Errorf("key %s: %w", id, err)
		}
	}
	return nil
}

// find returns the ids of the keys that an entry is about, as a rule one.
func (w *keyWAL) find(ctx context.Context, session *iam.Session) ([]string, error) {
	if w.KeyID != "" {
		return []string{w.KeyID}, nil
	}
	keys, err := session.Find(ctx, w.KeyName, w.IAMID, w.AccountID)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, key := range keys {
		ids = append(ids, key.ID)
	}
	// An announcement from the future is of a clock that was set back since.
	if age := time.Since(w.Since).Abs(); len(ids) == 0 && age < creationSettles {
		return nil, &unsettledError{wait: creationSettles - age}
	}
	return ids, nil
}

// isRefused says that a clean-up will not succeed with the key that is stored,
// however often it is tried.
func isRefused(err error) bool {
	var (
		failed *upstream.Error
		user   *userError
	)
	return errors.As(err, &user) || errors.As(err, &failed) && failed.Outcome == upstream.Refused
}
