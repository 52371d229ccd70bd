// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// earlierConfigs are stored configs by name, as a build of v0.1.0 wrote them. The
// file is never written again: a later form of configs gets a file of its own.
func earlierConfigs(t *testing.T) map[string]json.RawMessage {
	t.Helper()
	text, err := os.ReadFile("testdata/configs_v0.1.0.json")
	if err != nil {
		t.Fatal(err)
	}
	var configs map[string]json.RawMessage
	if err := json.Unmarshal(text, &configs); err != nil {
		t.Fatal(err)
	}
	return configs
}

func (m *mount) stored(name string) map[string]any {
	m.Helper()
	entry, err := m.storage.Get(context.Background(), configStoragePrefix+name)
	if err != nil || entry == nil {
		m.Fatalf("config %s is not in storage: %v", name, err)
	}
	var fields map[string]any
	if err := json.Unmarshal(entry.Value, &fields); err != nil {
		m.Fatal(err)
	}
	return fields
}

func TestConfigsThatAnEarlierBuildStoredAreReadAndKeepWhatTheyHold(t *testing.T) {
	for name, value := range earlierConfigs(t) {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: configStoragePrefix + name, Value: value}); err != nil {
				t.Fatal(err)
			}
			before := m.stored(name)
			answer := m.must(logical.ReadOperation, "config/"+name, nil).Data
			for field, want := range before {
				switch field {
				case "schema", "revision", "api_key", "client_secret":
					continue // Not answered.
				case "request_timeout", "refresh_before":
					want = want.(float64) / float64(time.Second)
				case "created_at", "updated_at":
					at, err := time.Parse(time.RFC3339, want.(string))
					if err != nil {
						t.Fatal(err)
					}
					want = at.Format(time.RFC3339)
				}
				if got := answer[field]; fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s is %v, was stored as %v", field, got, want)
				}
			}

			m.must(logical.UpdateOperation, "config/"+name, map[string]any{"max_retries": 9})
			after := m.stored(name)
			for field, want := range before {
				switch field {
				case "schema", "revision", "updated_at", "max_retries":
					continue // These are what a write changes.
				}
				if got := after[field]; fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("a write that does not name %s changed it", field)
				}
			}
		})
	}
}
