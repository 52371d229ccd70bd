// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

func (m *mount) readStatus(name string) map[string]any {
	m.Helper()
	return m.must(logical.ReadOperation, "status/"+name, nil).Data
}

func requireFields(t *testing.T, data map[string]any, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(data)); !slices.Equal(got, want) {
		t.Fatalf("fields are %q, want %q", got, want)
	}
}

// requireRecent fails unless a field is a time of the last minute.
func requireRecent(t *testing.T, data map[string]any, field string) {
	t.Helper()
	at, err := time.Parse(time.RFC3339, data[field].(string))
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(at); age < 0 || age > time.Minute {
		t.Errorf("%s is %s ago", field, age)
	}
}

// The status of a config that was not used yet is loaded from storage, and calls no
// service.
func TestStatus_ofAnUnusedConfig(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"verify": false})
	m.restart()
	data := m.readStatus("us-south")
	requireFields(t, data, "api_key_age", "consecutive_failures")
	if age := data["api_key_age"].(int64); age < 0 || age > 60 {
		t.Errorf("api_key_age is %d", age)
	}
	if data["consecutive_failures"] != int64(0) || m.sim.Counts().Exchanges != 0 {
		t.Errorf("%v failures, %d exchanges", data["consecutive_failures"], m.sim.Counts().Exchanges)
	}
}

func TestStatus_sharedTokenAsItsReadersSeeIt(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	answer, data := m.readToken("us-south"), m.readStatus("us-south")
	requireFields(t, data, "token_id", "expires_at", "ttl", "last_success", "api_key_age", "consecutive_failures")
	if data["token_id"] != answer["token_id"] || data["expires_at"] != answer["expires_at"] {
		t.Errorf("status is %v", data)
	}
	if difference := answer["ttl"].(int64) - data["ttl"].(int64); difference < 0 || difference > 2 {
		t.Errorf("ttl is %v, a reader's %v", data["ttl"], answer["ttl"])
	}
	requireRecent(t, data, "last_success")
}

// The status says what failed, and shows no secret.
func TestStatus_failures(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	token := m.readToken("us-south")
	m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 401})
	m.failure(logical.UpdateOperation, "token/us-south", nil)
	data := m.readStatus("us-south")
	if !strings.Contains(data["last_error"].(string), "refused the API key (HTTP 401)") || data["consecutive_failures"] != int64(1) {
		t.Errorf("status is %v", data)
	}
	if data["token_id"] != token["token_id"] {
		t.Errorf("token_id is %v, though the current token still works", data["token_id"])
	}
	requireRecent(t, data, "last_error_time")
	if at, err := time.Parse(time.RFC3339, data["retry_at"].(string)); err != nil || time.Until(at) > time.Minute {
		t.Errorf("retry_at is %v", data["retry_at"])
	}
	encoded, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	requireNoKey(t, string(encoded))
	if strings.Contains(string(encoded), token["token"].(string)) {
		t.Error("the status holds the token")
	}
}

// The status after a write keeps the backoff and the history of the token.
func TestStatus_afterAWrite(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503, RetryAfter: "600"})
	m.failure(logical.UpdateOperation, "token/us-south", nil)
	before := m.readStatus("us-south")
	m.must(logical.UpdateOperation, "config/us-south", map[string]any{"max_retries": 1})
	after := m.readStatus("us-south")
	requireFields(t, after, "token_id", "expires_at", "ttl", "last_success", "api_key_age", "consecutive_failures", "retry_at")
	for _, field := range []string{"token_id", "expires_at", "last_success", "consecutive_failures", "retry_at"} {
		if after[field] != before[field] {
			t.Errorf("%s is %v, was %v", field, after[field], before[field])
		}
	}
	m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": "another-key", "verify": false}))
	if another := m.readStatus("us-south"); another["consecutive_failures"] != int64(0) || another["retry_at"] != nil {
		t.Errorf("of another key status tells %v failures, and to retry at %v", another["consecutive_failures"], another["retry_at"])
	}
}

func TestStatus_ofNoConfigSaysHowToMakeOne(t *testing.T) {
	m := newMount(t)
	for _, name := range []string{"us-south", "a/b", ".."} {
		status, text := m.failure(logical.ReadOperation, "status/"+name, nil)
		if status != 400 || !strings.Contains(text, "there is no config") {
			t.Errorf("%s is answered %d %s", name, status, text)
		}
	}
}

func TestStatus_storageFailureIs500(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"verify": false})
	m.restart()
	m.storage.failNth(1)
	if status, text := m.failure(logical.ReadOperation, "status/us-south", nil); status != 500 || !strings.Contains(text, "read status") {
		t.Errorf("answered %d %s", status, text)
	}
}

// TestStatus_tellsOfRetiredKeysAlone takes a key back whose deletion has failed.
func TestStatus_tellsOfRetiredKeysAlone(t *testing.T) {
	rotationTest(t, func(m *mount) {
		for range 2 {
			m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "1h"})
		}
		m.sim.RevokeKey(m.storedConfigOf("us-south").APIKey)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		retired := m.storedConfigOf("us-south").Keys.Retired
		taken := retired[slices.IndexFunc(retired, func(k rotation.Retired) bool { return k.Managed && !k.Keep })]
		cleanupErrors := func() map[string]any {
			why, _ := m.readStatus("us-south")["cleanup_errors"].(map[string]any)
			return why
		}
		if cleanupErrors()[taken.ID] == nil {
			t.Fatal("the deletion has not failed")
		}
		m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": string(taken.Value)}))
		if why := cleanupErrors()[taken.ID]; why != nil {
			t.Errorf("of the key in use the status says %v", why)
		}
	})
}
