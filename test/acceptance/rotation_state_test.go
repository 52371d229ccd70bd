// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"cmp"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// withRawStorage is a storage of which the tests read and change what the plugin has
// stored.
const withRawStorage = onRaft + "\nraw_storage_endpoint = true"

// in is the stack for a subtest.
func (s *stack) in(t *testing.T) *stack {
	inner := *s
	inner.T = t
	return &inner
}

// rotate asks for a rotation without a grace period and returns the id of the new key.
func (s *stack) rotate(name string) (keyID string, err error) {
	secret, err := s.client.Logical().Write("apic/config/"+name+"/rotate", map[string]any{"grace_period": "0s"})
	if err != nil {
		return "", err
	}
	return secret.Data["api_key_id"].(string), nil
}

// configKeyID is what a config says of its key.
func configKeyID(config *api.Secret) string {
	id, _ := config.Data["api_key_id"].(string)
	return id
}

func (s *stack) liveKeysOf(identity string) []apicsim.KeyInfo {
	return slices.DeleteFunc(s.sim.Keys(), func(key apicsim.KeyInfo) bool {
		return key.IAMID != identity || !key.DeletedAt.IsZero()
	})
}

// awaitOneKey returns the key that is left of an identity's, of which an empty one is
// that of the first key. A plugin deletes none in its first half minute, and then not
// while it backs off.
func (s *stack) awaitOneKey(identity string) (left apicsim.KeyInfo) {
	s.Helper()
	identity = cmp.Or(identity, s.sim.Keys()[0].IAMID)
	if !until(2*time.Minute, nil, func() bool { return len(s.liveKeysOf(identity)) == 1 }) {
		s.Fatalf("IAM goes on having %d keys", len(s.liveKeysOf(identity)))
	}
	return s.liveKeysOf(identity)[0]
}

// exchangedKey is the digest of the key that a token was issued for.
func (s *stack) exchangedKey(tokenID string) string {
	s.Helper()
	for _, issued := range s.sim.Issued() {
		if issued.ID == tokenID {
			return issued.KeyID
		}
	}
	s.Fatal("nobody issued the token")
	return ""
}

// storedPath is the path of the mount's storage for Vault's raw endpoint.
func (s *stack) storedPath() string {
	s.Helper()
	mounts, err := s.client.Sys().ListMounts()
	s.check(err)
	return "sys/raw/logical/" + mounts["apic/"].UUID + "/"
}

// stored is the text of what is stored of a config.
func (s *stack) stored(name string) string {
	s.Helper()
	raw := s.read(s.storedPath() + "config/" + name)
	return raw.Data["value"].(string)
}

// storedKeys is what is stored of a config's keys.
func (s *stack) storedKeys(name string) rotation.Record {
	s.Helper()
	var config struct {
		Keys rotation.Record `json:"keys"`
	}
	s.check(json.Unmarshal([]byte(s.stored(name)), &config))
	return config.Keys
}

// editStored changes a config behind the plugin's back.
func (s *stack) editStored(name string, edit func(map[string]any)) {
	s.Helper()
	var stored map[string]any
	s.check(json.Unmarshal([]byte(s.stored(name)), &stored))
	edit(stored)
	edited, err := json.Marshal(stored)
	s.check(err)
	s.write(s.storedPath()+"config/"+name, map[string]any{"value": string(edited)})
}
