// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// scheduled writes a config with a key and an identity of its own, which is named after it.
func (s *stack) scheduled(name string, settings map[string]any) {
	s.Helper()
	key := "canary-" + rand.Text()
	s.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: identityPrefix + name})
	settings["api_key"], settings["iam_url"], settings["rotation_grace_period"] = key, s.service.URL(), "0s"
	s.writeConfig(name, settings)
}

// creations are when rotations made the keys of a config that scheduled has written.
func (s *stack) creations(name string) (times []time.Time) {
	for _, key := range s.sim.Keys() {
		if key.IAMID == identityPrefix+name && key.CreatedByAPI {
			times = append(times, key.CreatedAt)
		}
	}
	return times
}

// TestRotation_bySchedule has one config rotate each minute, and meanwhile another one not,
// whose window ended long ago. That has the last of its schedule set back in Vault's own
// storage, and so has a third, whose schedule has no window: what that misses is made up for.
func TestRotation_bySchedule(t *testing.T) {
	t.Parallel()
	const minutely, missed, late, disabled = "minutely", "missed", "late", "disabled"
	s := newStackOn(t, withRawStorage, pluginBinary)
	halfADayAway := time.Now().UTC().Add(12 * time.Hour).Truncate(time.Hour)
	daily := fmt.Sprintf("0 %d * * *", halfADayAway.Hour())
	s.scheduled(minutely, map[string]any{"rotation_schedule": "* * * * *", "rotation_window": "1h"})
	s.scheduled(missed, map[string]any{"rotation_schedule": daily, "rotation_window": "1h"})
	s.scheduled(late, map[string]any{"rotation_schedule": daily})
	s.scheduled(disabled, map[string]any{"rotation_schedule": "* * * * *", "disable_automated_rotation": true})
	for _, name := range []string{missed, late} {
		s.editStored(name, func(stored map[string]any) {
			stored["next_vault_rotation"] = halfADayAway.AddDate(0, 0, -90).Add(10 * time.Minute).Format(time.RFC3339)
			if name == missed {
				stored["rotation_until"] = halfADayAway.AddDate(0, 0, -90).Add(time.Hour).Format(time.RFC3339)
			}
		})
	}
	s.write("sys/plugins/reload/backend", map[string]any{"mounts": "apic/"})

	before := len(s.creations(minutely))
	rotated := func() bool { return len(s.creations(minutely)) >= before+2 && len(s.creations(late)) > 0 }
	if !until(4*time.Minute, nil, rotated) {
		t.Fatalf("keys were made at %v by the schedule, and at %v for what was missed: %s", s.creations(minutely), s.creations(late), s.mustCLI("read", "apic/status/"+minutely))
	}
	minutes := make(map[time.Time]bool)
	for _, at := range s.creations(minutely) {
		if minutes[at.Truncate(time.Minute)] {
			t.Errorf("keys were made at %v", s.creations(minutely))
		}
		minutes[at.Truncate(time.Minute)] = true
	}
	for _, name := range []string{missed, disabled} {
		if times := s.creations(name); len(times) != 0 {
			t.Errorf("keys of %s were made at %v", name, times)
		}
	}

	for name, want := range map[string]time.Duration{missed: 12 * time.Hour, late: 12 * time.Hour, minutely: 0} {
		config := s.read("apic/config/" + name)
		next, err := time.Parse(time.RFC3339, config.Data["next_vault_rotation"].(string))
		if in := time.Until(next); err != nil || in < want-time.Hour-2*time.Minute || in > want+time.Hour {
			t.Errorf("the next rotation of %s is in %s (%v)", name, in, err)
		}
	}
	config := s.read("apic/config/" + disabled)
	if next := config.Data["next_vault_rotation"]; next != nil {
		t.Errorf("the next rotation of %s is at %v", disabled, next)
	}
	s.mustCLI("write", "-f", "apic/rotate-root/"+disabled)
	if times := s.creations(disabled); len(times) != 1 {
		t.Errorf("asked to, Vault made keys at %v", times)
	}
}
