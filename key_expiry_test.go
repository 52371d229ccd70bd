// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// expiryTest is on a mount whose key lives for 80 days and has every setting. Its config has a
// rotation_period of a year.
func expiryTest(t *testing.T, test func(m *mount)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		m.sim.AddLimitedKey(testKey, apicsim.KeyOptions{
			Description: "of the billing team", Life: 80 * 24 * time.Hour, ActionWhenLeaked: "delete", SupportSessions: true,
		})
		m.writeConfig("us-south", map[string]any{"rotation_period": "8760h"})
		synctest.Wait()
		test(m)
	})
}

// TestKeyExpiry_rotatesBefore has a key replaced when a quarter of its life is left, though its
// period is not over, by one that has all its settings and as long a life.
func TestKeyExpiry_rotatesBefore(t *testing.T) {
	expiryTest(t, func(m *mount) {
		status := m.readStatus("us-south")
		due, err := time.Parse(time.RFC3339, status["next_vault_rotation"].(string))
		if days := time.Until(due).Hours() / 24; err != nil || days < 65 || days > 67 {
			t.Errorf("the next rotation is in %.0f days", days)
		}
		if until := m.sample(`vault_apic_api_key_expiry_timestamp_seconds{config="us-south"}`); until < float64(time.Now().Add(79*24*time.Hour).Unix()) {
			t.Errorf("the key ends at %v, say the metrics", until)
		}
		for range 4 {
			time.Sleep(67 * 24 * time.Hour)
			synctest.Wait()
		}
		m.requireOneKey("us-south")
		key := m.liveKeys()[0]
		if life := key.ExpiresAt.Sub(key.CreatedAt); life < 79*24*time.Hour || life > 81*24*time.Hour {
			t.Errorf("the successor lives for %s", life)
		}
		if !key.CreatedByAPI || key.Description != "of the billing team" || key.ActionWhenLeaked != "delete" || !key.SupportSessions {
			t.Errorf("the successor is %+v", key)
		}
		m.readToken("us-south")
	})
}

// TestKeyExpiry_unknown warns the writer of a config of an issuer that does not say, for then
// its rotation would fail.
func TestKeyExpiry_unknown(t *testing.T) {
	expiryTest(t, func(m *mount) {
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallDetails, Kind: apicsim.KindStatus, Status: http.StatusForbidden, Times: 1})
		m.sim.AddKey("another-key")
		resp := m.must(logical.CreateOperation, "config/eu-de", m.configData(map[string]any{"api_key": "another-key", "rotation_period": "24h"}))
		if resp == nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "cannot be rotated") {
			t.Errorf("the answer is %+v", resp)
		}
		requireNoKey(t, strings.Join(resp.Warnings, " "))
	})
}

// TestKeyExpiry_rotationPatchedIn asks for the key's end although the patch carries no key, once.
func TestKeyExpiry_rotationPatchedIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		m.sim.AddLimitedKey(testKey, apicsim.KeyOptions{Life: 80 * 24 * time.Hour})
		m.writeConfig("us-south", nil)
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "8760h"})
		calls := m.sim.Counts().KeyCalls
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 1})
		if got := m.sim.Counts().KeyCalls; calls == 0 || got != calls {
			t.Errorf("the issuer is asked %d times, and %d times more", calls, got-calls)
		}
		time.Sleep(81 * 24 * time.Hour)
		synctest.Wait()
		m.readToken("us-south")
	})
}
