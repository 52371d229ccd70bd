// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// renewalTest runs in a bubble, on a mount with one config of the platform service, saas.
// Its key lives five minutes and works once, and platform says what the others are like.
func renewalTest(t *testing.T, platform apicsim.PlatformKeys, test func(m *mount)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim, err := apicsim.New(apicsim.Options{ClientID: "client", ClientSecret: testClientSecret, TokenTTL: 8 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		platform.SingleUse = true
		sim.SetPlatformKeys(platform)
		m := newPipedMount(t, sim, sim)
		m.defaults = map[string]any{"token_url": m.url + "/api/token", "credentials": testCredentials}
		m.initializeBackend()
		m.bringKey("saas", testKey)
		test(m)
	})
}

// bringKey writes a key that was made by hand just now.
func (m *mount) bringKey(name, key string) (warnings []string) {
	m.Helper()
	m.sim.AddLimitedKey(key, apicsim.KeyOptions{SingleUse: true, Life: 5 * time.Minute})
	op := logical.CreateOperation
	if m.storedConfig(name) != "" {
		op = logical.UpdateOperation
	}
	if resp := m.must(op, "config/"+name, m.configData(map[string]any{"api_key": key, "token_service": "platform"})); resp != nil {
		return resp.Warnings
	}
	return nil
}

// platformKeys are the keys of the engine's making that the platform still takes.
func (m *mount) platformKeys() (live int) {
	for _, k := range m.sim.Keys() {
		if k.CreatedByAPI && k.Exists() {
			live++
		}
	}
	return live
}

// requireReads reads a token every ten minutes for as long, each of which has to be good.
func (m *mount) requireReads(d time.Duration) {
	m.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Minute) {
		data := m.readToken("saas")
		if until, err := time.Parse(time.RFC3339, data["expires_at"].(string)); err != nil || !time.Now().Before(until) {
			m.Fatalf("a reader gets a token until %v", data["expires_at"])
		}
	}
}

// TestRenewal_oneShortLivedKeyIsAllItTakes lets fifty lives of a token pass, with restarts
// and kills among them.
func TestRenewal_oneShortLivedKeyIsAllItTakes(t *testing.T) {
	for name, platform := range map[string]apicsim.PlatformKeys{
		"keys live five minutes":                    {},
		"keys live for a month":                     {MaxTTL: 30 * 24 * time.Hour},
		"keys live five minutes, which is not told": {TokenTimes: true},
		"keys live for a month, which is not told":  {TokenTimes: true, MaxTTL: 30 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			renewalTest(t, platform, func(m *mount) {
				for i := range 10 {
					m.requireReads(5 * 6 * time.Hour)
					if i%2 == 0 {
						m.restart()
					} else {
						m.crash()
					}
					m.initializeBackend()
				}
				m.requireReads(time.Hour)
				if renewals := m.sim.Counts().Issued - 1; renewals < 45 || renewals > 55 {
					t.Errorf("%d renewals in 50 lives", renewals)
				}
				if n := m.platformKeys(); n > 2 {
					t.Errorf("%d keys are left at the platform", n)
				}
			})
		})
	}
}

// TestRenewal_nobodyReads holds that a config stays alive that nobody uses.
func TestRenewal_nobodyReads(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		time.Sleep(7 * 24 * time.Hour)
		m.requireReads(time.Hour)
	})
}

// TestRenewal_restartServesTheStoredToken makes no call at all.
func TestRenewal_restartServesTheStoredToken(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		id := m.readToken("saas")["token_id"]
		before := m.sim.Counts()
		m.restart()
		if got := m.readToken("saas")["token_id"]; got != id || m.sim.Counts().Exchanges != before.Exchanges {
			t.Errorf("after %d exchanges readers get %v, not %v", m.sim.Counts().Exchanges-before.Exchanges, got, id)
		}
	})
}

// TestRenewal_absence is how long Vault may be away, as the status says.
func TestRenewal_absence(t *testing.T) {
	const month = 30 * 24 * time.Hour
	for name, c := range map[string]struct {
		platform apicsim.PlatformKeys
		away     time.Duration
		goesOn   bool
	}{
		"an hour, with keys of five minutes":        {apicsim.PlatformKeys{}, time.Hour, true},
		"a day, with keys of five minutes":          {apicsim.PlatformKeys{}, 24 * time.Hour, false},
		"four weeks, with keys of a month":          {apicsim.PlatformKeys{MaxTTL: month}, 28 * 24 * time.Hour, true},
		"five weeks, with keys of a month":          {apicsim.PlatformKeys{MaxTTL: month}, 35 * 24 * time.Hour, false},
		"four weeks, with a month that nobody told": {apicsim.PlatformKeys{MaxTTL: month, TokenTimes: true}, 28 * 24 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			renewalTest(t, c.platform, func(m *mount) {
				time.Sleep(time.Minute)
				told, _ := m.must(logical.ReadOperation, "status/saas", nil).Data["can_be_away_until"].(string)
				until, err := time.Parse(time.RFC3339, told)
				if known := !c.platform.TokenTimes; err != nil || known && (time.Until(until) > c.away) != c.goesOn {
					t.Errorf("the status says %q", told)
				}
				m.backend.Cleanup(m.Context())
				time.Sleep(c.away)
				m.restart()
				m.initializeBackend()
				err = m.attempt(m.Context(), logical.ReadOperation, "token/saas", nil)
				if (err == nil) != c.goesOn || err != nil && !strings.Contains(err.Error(), "write another api_key") {
					t.Errorf("a reader gets the error %v", err)
				}
				if !c.goesOn {
					time.Sleep(time.Minute)
					m.bringKey("saas", "another-key")
				}
				m.requireReads(24 * time.Hour)
			})
		})
	}
}

// TestRenewal_creationRefused has the config work as without renewal, and its writer told.
func TestRenewal_creationRefused(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{Refuse: http.StatusForbidden}, func(m *mount) {
		m.sim.AddKey("reusable-key")
		resp := m.must(logical.UpdateOperation, "config/saas", m.configData(map[string]any{"api_key": "reusable-key", "token_service": "platform"}))
		if got := fmt.Sprint(resp.Warnings); !strings.Contains(got, "HTTP 403") || !strings.Contains(got, "could not make the next key") {
			t.Errorf("the warnings are %s", got)
		}
		calls := m.sim.Counts().KeyCalls
		for range 5 {
			m.must(logical.UpdateOperation, "token/saas", nil)
		}
		if got := m.sim.Counts().KeyCalls - calls; got > 1 {
			t.Errorf("five dedicated tokens take %d attempts at a key", got)
		}
		calls = m.sim.Counts().KeyCalls
		for i := range 20 {
			m.must(logical.PatchOperation, "config/saas", map[string]any{"max_retries": i % 2})
			time.Sleep(time.Second)
		}
		if got := m.sim.Counts().KeyCalls - calls; got > 1 {
			t.Errorf("twenty patches take %d attempts at a key", got)
		}
		m.requireReads(7 * 24 * time.Hour)
	})
}

// TestRenewal_keyDeletedByAnAdministrator is told of by the key's id, in the log and the status,
// with nothing to do for anybody; another one is made.
func TestRenewal_keyDeletedByAnAdministrator(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{MaxTTL: 365 * 24 * time.Hour}, func(m *mount) {
		time.Sleep(time.Hour)
		gone := m.storedConfigOf("saas").Keys.Current
		m.sim.RevokeKey(string(gone.Value))
		time.Sleep(5*time.Hour + 5*time.Second)
		told, _ := m.must(logical.ReadOperation, "status/saas", nil).Data["last_rotation_error"].(string)
		for where, text := range map[string]string{"status": told, "log": m.log.String()} {
			if !strings.Contains(text, gone.ID) || !strings.Contains(text, "Vault makes another one") || strings.Contains(text, "new api_key") {
				t.Errorf("the %s says %q", where, text)
			}
		}
		time.Sleep(time.Hour)
		if told, failed := m.must(logical.ReadOperation, "status/saas", nil).Data["last_rotation_error"]; failed {
			t.Errorf("an hour later the status says %q", told)
		}
		m.requireReads(24 * time.Hour)
	})
}

// TestRenewal_dedicatedToken leaves the shared one as it is.
func TestRenewal_dedicatedToken(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		shared := m.readToken("saas")["token_id"]
		seen := map[any]bool{shared: true}
		for range 3 {
			id := m.must(logical.UpdateOperation, "token/saas", nil).Data["token_id"]
			if seen[id] {
				t.Errorf("the token %v is not dedicated", id)
			}
			seen[id] = true
		}
		if got := m.readToken("saas")["token_id"]; got != shared {
			t.Error("the shared token is another one")
		}
		time.Sleep(time.Hour)
		if n := m.platformKeys(); n > 2 {
			t.Errorf("%d keys are left at the platform", n)
		}
	})
}

// TestRenewal_writesSpendNoKey changes settings, and tries them, without the key.
func TestRenewal_writesSpendNoKey(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{MaxTTL: 365 * 24 * time.Hour}, func(m *mount) {
		time.Sleep(time.Minute)
		id := m.readToken("saas")["token_id"]
		m.must(logical.PatchOperation, "config/saas", map[string]any{"max_retries": 1, "verify": true})
		m.must(logical.UpdateOperation, "endpoints/saas", map[string]any{"token_url": m.url + "/api/token"})
		if got := m.readToken("saas")["token_id"]; got != id || m.sim.Counts().Exchanges != 1 {
			t.Errorf("after %d exchanges readers get %v, not %v", m.sim.Counts().Exchanges, got, id)
		}
		status, text := m.failure(logical.UpdateOperation, "endpoints/saas", map[string]any{"token_url": m.url + "/elsewhere/token"})
		if status < 400 || !strings.Contains(text, "keeps its endpoints") {
			t.Errorf("responded %d %s", status, text)
		}
	})
}

// TestRenewal_rotate gets another key and token at once.
func TestRenewal_rotate(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		id := m.readToken("saas")["token_id"]
		data := m.must(logical.UpdateOperation, "config/saas/rotate", nil).Data
		if got := m.readToken("saas")["token_id"]; got == id || data["api_key_id"] == "" {
			t.Errorf("readers get %v; the response is %v", got, data)
		}
	})
}

// TestRenewal_deletionLeavesNothing at the platform.
func TestRenewal_deletionLeavesNothing(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{MaxTTL: 365 * 24 * time.Hour}, func(m *mount) {
		time.Sleep(time.Hour)
		m.must(logical.DeleteOperation, "config/saas", nil)
		time.Sleep(time.Hour)
		if n := m.platformKeys(); n > 0 {
			t.Errorf("%d keys are left at the platform", n)
		}
		if stored, err := m.storage.List(m.Context(), "deleted/"); err != nil || len(stored) > 0 {
			t.Errorf("what is left is %v, error %v", stored, err)
		}
	})
}

// TestRenewal_switchedOff works as long as its key does.
func TestRenewal_switchedOff(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		m.sim.AddKey("reusable-key")
		m.must(logical.UpdateOperation, "config/saas", m.configData(map[string]any{"api_key": "reusable-key", "token_service": "platform", "renew": false}))
		before := m.sim.Counts().KeysCreated
		m.requireReads(3 * 24 * time.Hour)
		if got := m.sim.Counts().KeysCreated - before; got > 0 {
			t.Errorf("%d keys were made", got)
		}
		if got := m.must(logical.ReadOperation, "config/saas", nil).Data["renew"]; got != false {
			t.Errorf("renew is read as %v", got)
		}
	})
}

// TestRenewal_standbyForwardsWhatTakesAKey serves what is fresh itself.
func TestRenewal_standbyForwardsWhatTakesAKey(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		m.replication = consts.ReplicationPerformanceStandby
		m.restart()
		m.readToken("saas")
		if _, err := m.do(logical.UpdateOperation, "token/saas", nil); err != logical.ErrReadOnly {
			t.Errorf("a dedicated token: the error is %v", err)
		}
		time.Sleep(6*time.Hour + time.Minute)
		if _, err := m.do(logical.ReadOperation, "token/saas", nil); err != logical.ErrReadOnly {
			t.Errorf("a token that is due: the error is %v", err)
		}
	})
}

// TestRenewal_secretsAreInNothingThatIsTold looks for keys and tokens of the engine's own.
func TestRenewal_secretsAreInNothingThatIsTold(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{MaxTTL: 365 * 24 * time.Hour}, func(m *mount) {
		time.Sleep(7 * time.Hour)
		keys := m.storedConfigOf("saas").Keys
		told := m.log.String() + fmt.Sprint(m.must(logical.ReadOperation, "config/saas", nil).Data, m.must(logical.ReadOperation, "status/saas", nil).Data)
		for _, secret := range []rotation.Secret{keys.Current.Value, keys.Token.Value} {
			if secret == "" || strings.Contains(told, string(secret)) {
				t.Error("a secret is missing, or told")
			}
		}
	})
}
