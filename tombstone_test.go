// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// buried rotates and deletes us-south while IAM deletes nothing, and returns what is
// left of it.
func (m *mount) buried() rotation.Ref {
	m.Helper()
	m.rotate("us-south")
	synctest.Wait()
	time.Sleep(3 * time.Minute)
	m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallDelete, Kind: apicsim.KindStatus, Status: 503})
	m.must(logical.DeleteOperation, "config/us-south", nil)
	graves, err := m.backend.configs.listAllTombstones(context.Background())
	if err != nil || len(graves) != 1 {
		m.Fatalf("%d tombstones (%v)", len(graves), err)
	}
	return graves[0]
}

// TestTombstone_outlivesARestart has another process finish what a deletion has left.
func TestTombstone_outlivesARestart(t *testing.T) {
	rotationTest(t, func(m *mount) {
		grave := m.buried()
		if _, held := m.backend.configs.holders.OtherHolder(rotation.Ref{}, testKey); held {
			t.Error("the imported key of a deleted config is held")
		}
		m.restart()
		m.begin()
		if record, err := m.backend.configs.tombstoneRecord(context.Background(), grave); err != nil || record == nil || len(record.ManagedIDs()) != 1 {
			t.Fatalf("the tombstone holds %v (%v)", record, err)
		}
		m.sim.ClearKeyFaults()
		m.waitForCleanup()
		if left := m.managedLiveKeys(); len(left) != 0 {
			t.Errorf("%d keys are left at IAM", len(left))
		}
		m.requireNothingPending()
	})
}

// TestTombstone_keyIsUsedByNoOtherConfig holds the key of a deleted config, whose
// deletion is decided, against a config that wants it.
func TestTombstone_keyIsUsedByNoOtherConfig(t *testing.T) {
	rotationTest(t, func(m *mount) {
		grave := m.buried()
		record, err := m.backend.configs.tombstoneRecord(context.Background(), grave)
		if err != nil {
			t.Fatal(err)
		}
		status, text := m.failure(logical.CreateOperation, "config/eu-de", m.configData(map[string]any{"api_key": string(record.Retired[0].Value)}))
		if status != 400 {
			t.Errorf("responded %d %s", status, text)
		}
	})
}

// TestTombstone_claim is what a claim on one does and does not.
func TestTombstone_claim(t *testing.T) {
	rotationTest(t, func(m *mount) {
		grave := m.buried()
		ctx := context.Background()
		c, err := m.backend.configs.claim(ctx, grave, "tested")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
		if !reflect.DeepEqual(c.Plan(), rotation.Plan{}) || c.Record().Current != nil {
			t.Error("a deleted config has a plan, or a key in use")
		}
		if _, err := c.Try(ctx, rotation.Key{Value: testKey}); err == nil {
			t.Error("a deleted config tries a key")
		}
		if err := c.Save(ctx, c.Record()); err != nil {
			t.Error(err)
		}
		other := *c
		if err := c.Save(ctx, c.Record()); err != nil {
			t.Error(err)
		}
		if err := other.Save(ctx, other.Record()); !errors.Is(err, rotation.ErrConflict) {
			t.Errorf("the error is %v", err)
		}
		if err := c.Remove(ctx); err != nil {
			t.Error(err)
		}
		if err := c.Reload(ctx); !errors.Is(err, rotation.ErrNoRecord) {
			t.Errorf("the error is %v", err)
		}
	})
}

// TestTombstone_thatFailedLateIsNotStuck has the tombstone's put fail, with and without an
// effect. The config is still there.
func TestTombstone_thatFailedLateIsNotStuck(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late %t", late), func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.rotate("us-south")
				synctest.Wait()
				time.Sleep(3 * time.Minute)
				m.storage.lateFailures.Store(late)
				m.storage.failPuts.Store(!late)
				m.failure(logical.DeleteOperation, "config/us-south", nil)
				m.storage.lateFailures.Store(false)
				m.storage.failPuts.Store(false)
				m.waitForCleanup()
				m.requireOneKey("us-south")
				m.requireNothingPending()
				if left := m.list(tombstoneStoragePrefix); len(left) != 0 {
					t.Errorf("a tombstone is left of %q", left)
				}
				m.rotate("us-south")
				m.waitForCleanup()
				m.requireOneKey("us-south")
			})
		})
	}
}
