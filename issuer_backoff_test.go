// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// refusedKeyTest runs in a bubble, on a mount whose config's key its issuer refuses, and
// which has a replaced key to delete.
func refusedKeyTest(t *testing.T, test func(m *mount, calls *callGauge)) {
	t.Helper()
	gaugedTest(t, func(m *mount, calls *callGauge) {
		m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "24h"})
		time.Sleep(time.Hour)
		synctest.Wait()
		m.sim.RevokeKey(m.storedConfigOf("us-south").APIKey)
		test(m, calls)
	})
}

// TestIssuerBackoff_cannotBeBypassed has somebody without the key, who may do
// everything with configs, try twenty times to have it sent to its issuer.
func TestIssuerBackoff_cannotBeBypassed(t *testing.T) {
	for name, try := range map[string]func(m *mount, i int){
		"rotations": func(m *mount, i int) {
			err := m.attempt(m.Context(), logical.UpdateOperation, "config/us-south/rotate", nil)
			if err == nil || !strings.Contains(err.Error(), "does not know the API key") || i > 0 && !strings.Contains(err.Error(), "the next attempt is possible in") {
				m.Errorf("attempt %d: error is %v", i, err)
			}
		},
		"writes, which have deletions tried again": func(m *mount, i int) {
			m.must(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": i % 2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			refusedKeyTest(t, func(m *mount, calls *callGauge) {
				before := calls.total()
				for i := range 20 {
					try(m, i)
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
				}
				if got := calls.total() - before; got != 1 {
					t.Errorf("the key was sent %d times", got)
				}
			})
		})
	}
}

// TestIssuerBackoff_rateLimitedIssuerIsNotCalled has somebody ask for rotations at an
// issuer that wants none for an hour.
func TestIssuerBackoff_rateLimitedIssuerIsNotCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := &callGauge{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		})}
		m := newHostsMount(t, map[string]http.Handler{"127.0.0.9": calls})
		m.writeConfig("us-south", map[string]any{"iam_url": "http://127.0.0.9"})
		for range 20 {
			if err := m.attempt(t.Context(), logical.UpdateOperation, "config/us-south/rotate", nil); ofCode(err) < 500 {
				t.Errorf("the error is a %d: %v", ofCode(err), err)
			}
		}
		if got := calls.total(); got != 1 {
			t.Errorf("the key was sent %d times", got)
		}
		time.Sleep(time.Hour)
		_ = m.attempt(t.Context(), logical.UpdateOperation, "config/us-south/rotate", nil)
		if got := calls.total(); got != 2 {
			t.Errorf("after the hour the key was sent %d times", got)
		}
	})
}

// TestIssuerBackoff_isDisplacedByNoMadeUpKeys has somebody without the key fill the
// memory with made-up keys, each refused by a service of theirs that asks not to be
// called for an hour.
func TestIssuerBackoff_isDisplacedByNoMadeUpKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		calls := &callGauge{handler: sim}
		busy := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		m := newPipedMount(t, sim, hosts{calls, map[string]http.Handler{"127.0.0.9": busy}})
		m.defaults = map[string]any{"iam_url": m.url}
		m.begin()
		m.writeConfig("us-south", nil)
		m.rotate("us-south")
		m.sim.RevokeKey(m.storedConfigOf("us-south").APIKey)
		makeUp := func(key string) {
			own := m.configData(map[string]any{"api_key": key, "token_url": "http://127.0.0.9"})
			if err := m.attempt(t.Context(), logical.CreateOperation, "config/own", own); err == nil {
				t.Fatal("a made-up key was accepted")
			}
		}
		for i := range maxIdleBackoffs {
			makeUp(fmt.Sprint("made-up-", i))
		}
		before := calls.total()
		for i := range 20 {
			_ = m.attempt(t.Context(), logical.UpdateOperation, "config/us-south/rotate", nil)
			makeUp(fmt.Sprint("another-", i))
		}
		if got := calls.total() - before; got != 1 {
			t.Errorf("the key was sent %d times", got)
		}
	})
}

func TestIssuerBackoff_endsWithinAMinute(t *testing.T) {
	refusedKeyTest(t, func(m *mount, calls *callGauge) {
		for range 20 {
			_ = m.attempt(context.Background(), logical.UpdateOperation, "config/us-south/rotate", nil)
			time.Sleep(10 * time.Second)
		}
		time.Sleep(50 * time.Second)
		before := calls.total()
		_ = m.attempt(context.Background(), logical.UpdateOperation, "config/us-south/rotate", nil)
		if calls.total() == before {
			t.Error("a key that was put right is not tried after a minute")
		}
	})
}

// TestIssuerBackoff_isNotThatOfTokens has an issuer refuse a key that the token service
// of the same name accepts, as while IAM's parts do not agree on a new key.
func TestIssuerBackoff_isNotThatOfTokens(t *testing.T) {
	refusedKeyTest(t, func(m *mount, calls *callGauge) {
		key := rotation.Secret(m.storedConfigOf("us-south").APIKey)
		if _, err := m.backend.issuer.Login(m.Context(), rotation.Binding{Issuer: m.url}, key); err == nil {
			t.Fatal("the key was not refused")
		}
		before := calls.total()
		_ = m.attempt(context.Background(), logical.UpdateOperation, "token/us-south", nil)
		if calls.total() == before {
			t.Error("the token service was not asked")
		}
	})
}
