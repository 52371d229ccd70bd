// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// nightly is a rotation each night from three o'clock on, by UTC.
func nightly(window string) map[string]any {
	return map[string]any{"rotation_schedule": "0 3 * * *", "rotation_window": window}
}

// ticksUntil lets time pass until a time of the day, by UTC, comes next.
func (m *mount) ticksUntil(hour, minute int) {
	m.Helper()
	now := time.Now().UTC()
	at := time.Date(now.Year(), now.Month(), now.Day(), hour, minute, 0, 0, time.UTC)
	if !at.After(now) {
		at = at.AddDate(0, 0, 1)
	}
	m.ticks(at.Sub(now))
}

// creations are the times at which rotations made keys.
func (m *mount) creations() (times []time.Time) {
	for _, key := range m.sim.Keys() {
		if key.CreatedByAPI {
			times = append(times, key.CreatedAt.UTC())
		}
	}
	return times
}

func (m *mount) requireCreations(want int) {
	m.Helper()
	if got := m.creations(); len(got) != want {
		m.Fatalf("at %s keys had been made at %v, and not %d", time.Now().UTC(), got, want)
	}
}

// nextRotationOf is the next_vault_rotation that a read answers, which the status has too.
func (m *mount) nextRotationOf(name string) time.Time {
	m.Helper()
	text, _ := m.must(logical.ReadOperation, "config/"+name, nil).Data["next_vault_rotation"].(string)
	if said := m.readStatus(name)["next_vault_rotation"]; text != "" && said != text || text == "" && said != nil {
		m.Fatalf("the config says %q, the status %v", text, said)
	}
	if text == "" {
		return time.Time{}
	}
	next, err := time.Parse(time.RFC3339, text)
	if err != nil {
		m.Fatal(err)
	}
	return next
}

func TestRotationSchedule_eachMinute(t *testing.T) {
	for name, c := range map[string]struct {
		window string
		latest int
	}{
		"without a window":          {"0", 5},
		"with windows that overlap": {"1h", 35},
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_schedule": "* * * * *", "rotation_window": c.window, "rotation_grace_period": 0})
				for _, restarts := range []bool{false, true} {
					if restarts {
						m.restart()
					}
					before := len(m.creations())
					m.ticks(10*time.Minute + 30*time.Second)
					times := m.creations()[before:]
					if len(times) < 9 || len(times) > 11 {
						t.Fatalf("keys were made at %v", times)
					}
					for _, at := range times {
						if at.Second() > c.latest {
							t.Errorf("a key was made at %s", at)
						}
					}
				}
				m.requireOneKey("us-south")
			})
		})
	}
}

func TestRotationSchedule_insideItsWindow(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", nightly("1h"))
		for night := range 5 {
			if next := m.nextRotationOf("us-south"); next.Hour() != 3 || time.Until(next) > 25*time.Hour {
				t.Errorf("the next rotation is due at %s", next)
			}
			m.ticksUntil(2, 59)
			m.requireCreations(night)
			m.ticksUntil(4, 0)
			m.requireCreations(night + 1)
		}
		different := make(map[int]bool)
		for _, at := range m.creations() {
			different[at.Minute()] = true
		}
		if len(different) < 2 {
			t.Errorf("keys were made at %v", m.creations())
		}
		m.waitForCleanup()
		m.requireOneKey("us-south")
	})
}

// TestRotationSchedule_missed is what becomes of a time at which no node could rotate.
func TestRotationSchedule_missed(t *testing.T) {
	for name, c := range map[string]struct {
		window string
		// back is the hour at which a node comes back, and then the number of keys that it
		// makes within the hour after that.
		back, then int
	}{
		"a window that has ended waits for the next": {"1h", 5, 0},
		"a window that has not ended is used":        {"3h", 5, 1},
		"without a window it is made up for":         {"0", 5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", nightly(c.window))
				m.replication = consts.ReplicationPerformanceStandby
				m.restart()
				due := m.nextRotationOf("us-south")
				m.ticksUntil(c.back, 0)
				// So that somebody is told of it.
				m.requireSample(`vault_apic_api_key_next_rotation_timestamp_seconds{config="us-south"}`, float64(due.Unix()))
				m.replication = 0
				m.restart()
				m.ticks(time.Hour)
				m.requireCreations(c.then)
				if next := m.nextRotationOf("us-south"); next.Day() != time.Now().UTC().Day()+1 || next.Hour() < 3 {
					t.Errorf("the next rotation is due at %s", next)
				}
				m.ticks(24 * time.Hour)
				m.requireCreations(c.then + 1)
			})
		})
	}
}

// TestRotationSchedule_putOffByAClock is a schedule that a clock has set which was ahead.
func TestRotationSchedule_putOffByAClock(t *testing.T) {
	for name, c := range map[string]struct {
		window        string
		soon, atNight int
	}{
		"with a window it waits for that": {"1h", 0, 1},
		"without one it is due":           {"0", 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", nightly(c.window))
				m.ticksUntil(12, 0)
				m.requireCreations(1)
				stored := m.storedConfigOf("us-south")
				stored.NextRotation = stored.NextRotation.AddDate(3, 0, 0)
				if c.window != "0" {
					stored.RotationUntil = stored.RotationUntil.AddDate(3, 0, 0)
				}
				m.putConfig("us-south", stored)
				m.restart()
				m.ticks(5 * time.Minute)
				m.requireCreations(1 + c.soon)
				m.ticksUntil(4, 0)
				m.requireCreations(1 + c.atNight)
			})
		})
	}
}

// TestRotationSchedule_failuresInsideTheWindow are tried again inside it, and no more after
// its end.
func TestRotationSchedule_failuresInsideTheWindow(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", nightly("1h"))
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallCreate, Kind: apicsim.KindStatus, Status: http.StatusForbidden})
		for range 2 {
			m.ticksUntil(4, 0)
			failures := m.readStatus("us-south")["consecutive_rotation_failures"].(int64)
			m.ticksUntil(2, 59)
			if after := m.readStatus("us-south")["consecutive_rotation_failures"].(int64); after != failures {
				t.Fatalf("the rotation was tried %d times outside of its window", after-failures)
			}
		}
		m.ticksUntil(3, 40) // A rotation is due by half past three.
		before := m.readStatus("us-south")["consecutive_rotation_failures"].(int64)
		m.ticksUntil(3, 50)
		if after := m.readStatus("us-south")["consecutive_rotation_failures"].(int64); after < before+3 {
			t.Errorf("in the third night's window the rotation was tried %d times in ten minutes", after-before)
		}
		m.sim.ClearKeyFaults()
		m.ticksUntil(4, 0)
		m.requireCreations(1)
		m.requireOneKey("us-south")
	})
}

// TestRotationSchedule_begunIsFinished holds that the end of a window ends no rotation that
// was begun inside it.
func TestRotationSchedule_begunIsFinished(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", nightly("1h"))
		m.ticksUntil(2, 59)
		m.sim.Inject(apicsim.Fault{Service: "login", Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable})
		m.ticksUntil(4, 30)
		if m.isRotated("us-south") {
			t.Fatal("the rotation needs no token")
		}
		m.requireCreations(1)
		m.sim.ClearFault()
		m.ticks(62 * time.Minute)
		m.requireCreations(1)
		if !m.isRotated("us-south") {
			t.Error("the rotation that was begun is not finished")
		}
		m.requireOneKey("us-south")
	})
}

func TestDisableAutomatedRotation(t *testing.T) {
	for name, settings := range map[string]map[string]any{
		"of a period":   {"rotation_period": "24h"},
		"of a schedule": nightly("1h"),
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", settings)
				m.must(logical.PatchOperation, "config/us-south", map[string]any{"disable_automated_rotation": true})
				m.ticks(49 * time.Hour)
				m.requireCreations(0)
				if next := m.nextRotationOf("us-south"); !next.IsZero() {
					t.Errorf("the next rotation is due at %s", next)
				}
				if strings.Contains(m.exposition(), `next_rotation_timestamp_seconds{`) {
					t.Error("the metrics have a time for it")
				}

				m.must(logical.UpdateOperation, "config/us-south/rotate", nil)
				m.requireCreations(1)
				m.waitForCleanup()
				if live := m.liveKeys(); len(live) != 1 {
					t.Errorf("IAM holds %d keys", len(live))
				}
				m.ticks(49 * time.Hour)
				m.requireCreations(1)

				m.must(logical.PatchOperation, "config/us-south", map[string]any{"disable_automated_rotation": false})
				next := m.nextRotationOf("us-south")
				if time.Until(next) <= 0 || time.Until(next) > 25*time.Hour {
					t.Errorf("the next rotation is due at %s", next)
				}
				m.requireCreations(1)
				m.ticks(time.Until(next) + 2*time.Minute)
				m.requireCreations(2)
			})
		})
	}
}

// TestRotateRoot_isRotate holds that the two paths differ in nothing but their names.
func TestRotateRoot_isRotate(t *testing.T) {
	rotationTest(t, func(m *mount) {
		data := m.must(logical.UpdateOperation, "rotate-root/us-south", map[string]any{"grace_period": "1h"}).Data
		if stored := m.storedConfigOf("us-south"); data["api_key_id"] != stored.Keys.Current.ID || data["last_vault_rotation"] != time.Now().UTC().Format(time.RFC3339) || data["retired_api_keys"] == nil {
			t.Errorf("it answered %v", data)
		}
		if said := m.readStatus("us-south")["last_vault_rotation"]; said != data["last_vault_rotation"] {
			t.Errorf("the status says %v", said)
		}
		m.requireCreations(1)
		for _, path := range []string{"rotate-root/nowhere", "config/nowhere/rotate"} {
			status, text := m.failure(logical.UpdateOperation, path, nil)
			if status != http.StatusBadRequest || !strings.Contains(text, `no config "nowhere"`) {
				t.Errorf("%s answered %d %s", path, status, text)
			}
		}
		root, rotate := m.backend.Route("rotate-root/us-south"), m.backend.Route("config/us-south/rotate")
		if root == rotate || root.HelpDescription != rotate.HelpDescription || len(root.Operations) != len(rotate.Operations) {
			t.Error("they are not alike")
		}
	})
}
