// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// reuseTest is a renewalTest whose config has a rotation_period of a week, on a platform whose
// keys work more than once if multiple says so.
func reuseTest(t *testing.T, multiple bool, test func(m *mount)) {
	t.Helper()
	renewalTest(t, apicsim.PlatformKeys{MaxTTL: 365 * 24 * time.Hour}, func(m *mount) {
		m.sim.SetPlatformKeys(apicsim.PlatformKeys{MaxTTL: 365 * 24 * time.Hour, SingleUse: !multiple})
		m.must(logical.PatchOperation, "config/saas", map[string]any{"rotation_period": "168h", "rotation_grace_period": "1h"})
		m.must(logical.UpdateOperation, "config/saas/rotate", nil)
		synctest.Wait()
		test(m)
	})
}

// TestRenewal_keysThatWorkMoreThanOnce are replaced once in a rotation period, and by hand.
func TestRenewal_keysThatWorkMoreThanOnce(t *testing.T) {
	reuseTest(t, true, func(m *mount) {
		first := m.must(logical.ReadOperation, "config/saas", nil).Data
		m.requireReads(6 * 24 * time.Hour)
		same := m.must(logical.ReadOperation, "config/saas", nil).Data
		if same["api_key_id"] != first["api_key_id"] || m.sim.Counts().Issued < 20 {
			t.Errorf("after six days and %d tokens the key is %v, not %v", m.sim.Counts().Issued, same["api_key_id"], first["api_key_id"])
		}
		m.requireReads(25 * time.Hour)
		next := m.must(logical.ReadOperation, "config/saas", nil).Data
		if next["api_key_id"] == first["api_key_id"] {
			t.Error("the key is not rotated after its period")
		}
		synctest.Wait()
		m.must(logical.UpdateOperation, "config/saas/rotate", map[string]any{"grace_period": "24h"})
		synctest.Wait()
		after := m.must(logical.ReadOperation, "config/saas", nil).Data
		if retired, _ := after["retired_api_keys"].(map[string]any); after["api_key_id"] == next["api_key_id"] || retired[next["api_key_id"].(string)] == nil {
			t.Errorf("after a rotation the config answers %v", after)
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if n := m.platformKeys(); n != 1 {
			t.Errorf("%d keys are left at the platform", n)
		}
		m.restart()
		m.requireReads(24 * time.Hour)
	})
}

// TestRenewal_periodWhereKeysWorkOnce has no effect, and the log says so.
func TestRenewal_periodWhereKeysWorkOnce(t *testing.T) {
	reuseTest(t, false, func(m *mount) {
		m.requireReads(4 * 24 * time.Hour)
		if n := m.platformKeys(); n > 2 {
			t.Errorf("%d keys are left at the platform", n)
		}
		if !strings.Contains(m.log.String(), "works once") {
			t.Error("the log does not say that rotation_period has no effect")
		}
	})
}

// TestRenewal_periodNeedsRenew, for Vault makes no keys without.
func TestRenewal_periodNeedsRenew(t *testing.T) {
	reuseTest(t, true, func(m *mount) {
		_, text := m.failure(logical.PatchOperation, "config/saas", map[string]any{"renew": false})
		if !strings.Contains(text, "rotation_period") {
			t.Errorf("the error is %q", text)
		}
		m.must(logical.PatchOperation, "config/saas", map[string]any{"renew": false, "rotation_period": 0})
	})
}
