// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// TestCacheMode_isReadBackAsText whatever the client sends: the CLI sends text, and others
// a JSON boolean.
func TestCacheMode_isReadBackAsText(t *testing.T) {
	for _, c := range []struct {
		sent any
		want string
	}{
		{true, "true"}, {"true", "true"}, {"1", "true"}, {json.Number("1"), "true"},
		{false, "false"}, {"false", "false"}, {json.Number("0"), "false"},
		{"entity", "entity"},
	} {
		t.Run(fmt.Sprintf("%T %v", c.sent, c.sent), func(t *testing.T) {
			m := newMount(t)
			m.writeConfig("us-south", map[string]any{"cache": c.sent, "verify": false})
			m.restart() // What is stored counts.
			if got := m.must(logical.ReadOperation, "config/us-south", nil).Data["cache"]; got != c.want {
				t.Errorf("cache is %v", got)
			}
		})
	}
}

func TestCacheMode_refusals(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"cache": "entity", "verify": false})
	for _, wrong := range []any{"perhaps", "Entity", "entity ", "", 2} {
		status, text := m.failure(logical.UpdateOperation, "config/us-south", map[string]any{"cache": wrong})
		if status != http.StatusBadRequest || !strings.HasPrefix(text, "cache must be true, false or entity") {
			t.Errorf("%v: responded %d %s", wrong, status, text)
		}
	}
	if got := m.must(logical.ReadOperation, "config/us-south", nil).Data["cache"]; got != "entity" {
		t.Errorf("cache is %v", got)
	}
}

// TestCacheMode_entityWhereKeysRenew is refused in whatever order the fields come.
func TestCacheMode_entityWhereKeysRenew(t *testing.T) {
	refused := func(m *mount, op logical.Operation, data map[string]any) {
		m.Helper()
		status, text := m.failure(op, "config/platform", data)
		if status != http.StatusBadRequest || !strings.HasPrefix(text, "cache cannot be entity where keys renew themselves") || !strings.Contains(text, "renew=false") {
			m.Errorf("responded %d %s", status, text)
		}
	}
	m := newMount(t)
	platform := map[string]any{
		"token_service": "platform", "token_url": m.url + "/api/token", "credentials": testCredentials, "verify": false, "cache": "entity",
	}
	refused(m, logical.CreateOperation, m.configData(platform))
	platform["renew"] = false
	m.must(logical.CreateOperation, "config/platform", m.configData(platform))
	refused(m, logical.PatchOperation, map[string]any{"renew": true})
	refused(m, logical.PatchOperation, map[string]any{"renew": nil})
	m.must(logical.PatchOperation, "config/platform", map[string]any{"renew": true, "cache": nil})
	refused(m, logical.UpdateOperation, map[string]any{"cache": "entity"})
}
