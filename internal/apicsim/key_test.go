// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAddKey_defaultIdentity: a key that is added belongs to the one identity unless it
// says another.
func TestAddKey_defaultIdentity(t *testing.T) {
	s := newTokenSim(t)
	s.AddKey("second")
	s.AddLimitedKey("third", KeyOptions{Name: "n", IAMID: "i", AccountID: "a", Locked: true})
	keys := s.Keys()
	if len(keys) != 3 || keys[0].KeyID != s.KeyID(testKey) || keys[2].KeyID != s.KeyID("third") {
		t.Fatalf("keys are %+v", keys)
	}
	if keys[0].IAMID == "" || keys[0].IAMID != keys[1].IAMID || keys[0].AccountID != keys[1].AccountID {
		t.Errorf("identities are %+v", keys[:2])
	}
	if k := keys[2]; k.Name != "n" || k.IAMID != "i" || k.AccountID != "a" || !k.Locked || k.CreatedByAPI || !k.Exists() {
		t.Errorf("the third key is %+v", k)
	}
	id := regexp.MustCompile(`^ApiKey-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if !id.MatchString(keys[0].ID) || keys[0].ID == keys[1].ID {
		t.Errorf("ids are %q and %q", keys[0].ID, keys[1].ID)
	}
}

func TestRevokeKey_remembersTheKey(t *testing.T) {
	s := newTokenSim(t)
	s.RevokeKey(testKey)
	gone := s.Keys()[0]
	s.RevokeKey(testKey)
	s.RevokeKey("no key at all")
	if again := s.Keys()[0]; gone.Exists() || again.DeletedAt != gone.DeletedAt {
		t.Fatalf("the key is %+v", again)
	}
}

func TestKeys_createdKeyIsRefusedUntilItArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		s.SetLag(Lag{Tokens: 5 * time.Second})
		value, _ := decodeBody(t, callKeys(s, bearerOf(t, s, testKey), http.MethodPost, "/v1/apikeys", newKeyBody))["apikey"].(string)
		time.Sleep(5*time.Second - time.Nanosecond)
		for service, want := range map[string]int{"login": 401, "iam": 400, "platform": 401} {
			if got := exchangeAt(s, service, value, nil).Code; got != want {
				t.Errorf("%s: a moment before, status is %d", service, got)
			}
			if got := exchangeAt(s, service, testKey, nil).Code; got != http.StatusOK {
				t.Errorf("%s: the old key's status is %d", service, got)
			}
		}
		time.Sleep(time.Nanosecond)
		for _, service := range []string{"login", "iam", "platform"} {
			if got := exchangeAt(s, service, value, nil).Code; got != http.StatusOK {
				t.Errorf("%s: then status is %d", service, got)
			}
		}
	})
}

func TestNewKey_looksLikeIBMs(t *testing.T) {
	first, second := NewKeyValue(), NewKeyValue()
	if first == second || len(first) != 44 || strings.Trim(first, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Fatalf("keys have %d bytes", len(first))
	}
}
