// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// ticks lets time pass as Vault does, with a tick each minute.
func (m *mount) ticks(d time.Duration) {
	m.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Minute)
		m.tick()
	}
}

// A key is rotated once per period, and up to a tenth of the period early.
func TestRotationPeriod_onceAndUpToATenthEarlier(t *testing.T) {
	rotationTest(t, func(m *mount) {
		const period = 24 * time.Hour
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "24h"})
		began := time.Now()
		for rotations := 1; rotations <= 3; rotations++ {
			for m.sim.Counts().KeysCreated < rotations && time.Since(began) < 2*period {
				m.ticks(time.Minute)
			}
			if took := time.Since(began); took < period*9/10 || took > period+2*time.Minute {
				t.Fatalf("rotation %d came after %s", rotations, took)
			}
			began = time.Now()
		}
		m.waitForCleanup()
		m.requireOneKey("us-south")
		next, err := time.Parse(time.RFC3339, m.must(logical.ReadOperation, "config/us-south", nil).Data["next_vault_rotation"].(string))
		if err != nil || next.Before(time.Now().Add(period*9/10-15*time.Minute)) || next.After(time.Now().Add(period)) {
			t.Errorf("next_vault_rotation is %s away (%v)", time.Until(next), err)
		}
	})
}

func TestRotationPeriod_continuesAfterARestart(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "24h"})
		next := m.must(logical.ReadOperation, "config/us-south", nil).Data["next_vault_rotation"]
		m.ticks(12 * time.Hour)
		m.restart()
		if got := m.must(logical.ReadOperation, "config/us-south", nil).Data["next_vault_rotation"]; got != next {
			t.Errorf("next_vault_rotation was %v and is %v after the restart", next, got)
		}
		m.ticks(12*time.Hour + 2*time.Minute)
		if got := m.sim.Counts().KeysCreated; got != 1 {
			t.Fatalf("%d keys were created in a period", got)
		}
	})
}

// putConfig stores a config behind the mount's back.
func (m *mount) putConfig(name string, c *config) {
	m.Helper()
	entry, err := encode(configStoragePrefix+name, c)
	if err == nil {
		err = m.storage.Storage.Put(context.Background(), entry)
	}
	if err != nil {
		m.Fatal(err)
	}
}

// A rotation that was postponed by a clock which was ahead is due.
func TestRotationPeriod_postponedByAClockAhead(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "24h"})
		stored := m.storedConfigOf("us-south")
		stored.NextRotation = time.Now().Add(1000 * 24 * time.Hour)
		m.putConfig("us-south", stored)
		m.restart()
		m.ticks(2 * time.Minute)
		if got := m.sim.Counts().KeysCreated; got != 1 {
			t.Fatalf("%d keys were created", got)
		}
	})
}

func TestRotationPeriod_zeroNeverRotates(t *testing.T) {
	for name, turnOff := range map[string]map[string]any{
		"set to 0":      {"rotation_period": 0},
		"reset by null": {"rotation_period": nil},
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
				m.must(logical.PatchOperation, "config/us-south", turnOff)
				m.ticks(3 * time.Hour)
				if got := m.sim.Counts().KeysCreated; got != 0 {
					t.Fatalf("%d keys were created", got)
				}
			})
		})
	}
}

// TestRotations_rememberOnlyWhatIsDue turns the rotation on and off, and restarts. Of a config that is
// never rotated the schedule has nothing in memory.
func TestRotations_rememberOnlyWhatIsDue(t *testing.T) {
	rotationTest(t, func(m *mount) {
		requireKnown := func(want int) {
			t.Helper()
			m.must(logical.ReadOperation, "token/us-south", nil)
			if got := len(m.backend.rotations.known); got != want {
				t.Errorf("%d revisions are remembered, not %d", got, want)
			}
		}
		requireKnown(0)
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
		requireKnown(1)
		m.restart()
		m.begin()
		requireKnown(1)
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": 0})
		requireKnown(0)
		m.restart()
		m.begin()
		requireKnown(0)
	})
}

func TestRotationPeriod_writeOfOtherFieldsKeepsTheDate(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "24h"})
		before := m.must(logical.ReadOperation, "config/us-south", nil).Data["next_vault_rotation"]
		m.ticks(time.Hour)
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 1})
		if after := m.must(logical.ReadOperation, "config/us-south", nil).Data["next_vault_rotation"]; after != before {
			t.Errorf("next_vault_rotation moved from %v to %v", before, after)
		}
	})
}

func TestRotationPeriod_isSpreadOverItsLastTenth(t *testing.T) {
	const period = 100 * time.Hour
	now := time.Now()
	var waits []time.Duration
	for range 1000 {
		waits = append(waits, afterPeriod(now, period).Sub(now))
	}
	first, last := slices.Min(waits), slices.Max(waits)
	if first < 90*time.Hour-time.Second || last > period || last-first < 9*time.Hour {
		t.Errorf("rotations are due from %s to %s after they are set", first, last)
	}
}

func TestRotationPeriod_failureBacksOffAndKeepsTheKey(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
		m.ticks(50 * time.Minute)
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "create", Kind: apicsim.KindStatus, Status: http.StatusForbidden})
		m.ticks(13 * time.Hour)
		status := m.must(logical.ReadOperation, "status/us-south", nil).Data
		// After 1, 2, 4, 8, 16, 32 minutes and then every hour: about 17 in all.
		if failures := status["consecutive_rotation_failures"].(int64); failures < 10 || failures > 20 {
			t.Errorf("there were %d failures in a row", failures)
		}
		if why := status["last_rotation_error"].(string); !strings.Contains(why, "HTTP 403") {
			t.Errorf("the status says %s", why)
		}
		m.requireOneKey("us-south")
		m.sim.ClearKeyFaults()
		m.ticks(62 * time.Minute)
		if got := m.sim.Counts().KeysCreated; got != 1 {
			t.Errorf("after the failures %d keys were created", got)
		}
		status = m.must(logical.ReadOperation, "status/us-south", nil).Data
		if status["consecutive_rotation_failures"] != nil || status["last_rotation_error"] != nil {
			t.Error("the failures are still remembered")
		}
		m.requireOneKey("us-south")
	})
}

// A tick at which nothing is due costs nothing, however many configs there are.
func TestTick_withNothingDueCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		for i := range 10_000 {
			name := fmt.Sprintf("config-%d", i)
			c := defaultConfig(time.Now())
			c.Keys = rotation.New(name, upstream.Secret(fmt.Sprintf("%s-%d", testKey, i)))
			c.RotationPeriod, c.NextRotation = 240*time.Hour, time.Now().Add(240*time.Hour)
			m.putConfig(name, c)
		}
		m.restart()
		calls := m.storage.calls.Load()
		m.begin()
		// One list of the configs and one of the tombstones.
		if got := m.storage.calls.Load() - calls; got != 10_002 {
			t.Errorf("a start makes %d storage calls", got)
		}
		calls = m.storage.calls.Load()
		m.ticks(time.Hour)
		if got := m.storage.calls.Load() - calls; got != 0 {
			t.Errorf("an hour's ticks make %d storage calls", got)
		}
	})
}

func TestTick_rotatesAThousandConfigsAFewAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		const configs = 50
		for i := range configs {
			key := fmt.Sprintf("%s-%d", testKey, i)
			m.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: fmt.Sprintf("IBMid-%d", i)})
			m.writeConfig(fmt.Sprintf("config-%d", i), map[string]any{"api_key": key, "rotation_period": "1h"})
		}
		m.ticks(65 * time.Minute)
		if got := m.sim.Counts().KeysCreated; got != configs {
			t.Fatalf("%d of %d keys were rotated", got, configs)
		}
		for i := range configs {
			m.requireOneKeyOf(fmt.Sprintf("config-%d", i), fmt.Sprintf("IBMid-%d", i))
		}
	})
}

func TestTick_nodesThatMayNotWriteRotateNothing(t *testing.T) {
	for _, state := range []consts.ReplicationState{
		consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary, consts.ReplicationDRSecondary,
	} {
		t.Run(state.GetPerformanceString()+state.GetDRString(), func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
				m.replication = state
				m.restart()
				m.ticks(2 * time.Hour)
				if got := m.sim.Counts().KeysCreated; got != 0 {
					t.Fatalf("%d keys were created", got)
				}
				m.replication = 0
				m.restart()
				m.ticks(2 * time.Minute)
				if got := m.sim.Counts().KeysCreated; got != 1 {
					t.Fatalf("the node that took over created %d keys", got)
				}
			})
		})
	}
}

// panickingStorage panics once, when a config is read.
type panickingStorage struct {
	logical.Storage
	armed atomic.Bool
}

func (s *panickingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if strings.HasPrefix(key, configStoragePrefix) && s.armed.CompareAndSwap(true, false) {
		panic(testKey)
	}
	return s.Storage.Get(ctx, key)
}

func TestTick_panicEndsNeitherProcessNorSchedule(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
		m.ticks(30 * time.Minute)
		panicking := &panickingStorage{Storage: m.storage.Storage}
		panicking.armed.Store(true)
		m.storage.Storage = panicking
		m.ticks(35 * time.Minute)
		if got := m.sim.Counts().KeysCreated; got != 1 || panicking.armed.Load() {
			t.Fatalf("%d keys were created", got)
		}
	})
}

func TestTick_undecodableConfigStopsNoOther(t *testing.T) {
	rotationTest(t, func(m *mount) {
		if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: "config/broken", Value: []byte("{")}); err != nil {
			t.Fatal(err)
		}
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
		m.restart()
		m.ticks(65 * time.Minute)
		if got := m.sim.Counts().KeysCreated; got != 1 {
			t.Fatalf("%d keys were created", got)
		}
	})
}

func TestRotationPeriod_isZeroOrAtLeastAnHour(t *testing.T) {
	m := newMount(t)
	m.defaults = map[string]any{"iam_url": m.url}
	m.writeConfig("us-south", nil)
	for _, period := range []any{"59m", 1, "10000h"} {
		status, text := m.failure(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": period})
		if status != http.StatusBadRequest || !strings.Contains(text, "rotation_period must be 0 or") {
			t.Errorf("%v answered %d %s", period, status, text)
		}
	}
	m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
}
