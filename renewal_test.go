// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := newSimulation(t)
		platform.SingleUse = true
		sim.SetPlatformKeys(platform)
		m := newPipedMount(t, sim, sim)
		m.defaults = map[string]any{"token_url": m.url + "/api/token", "credentials": testCredentials}
		m.initializeBackend()
		m.bringKey("saas", testKey)
		synctest.Wait() // What the write has set off would keep others from writing.
		test(m)
	})
}

func newSimulation(t *testing.T) *apicsim.Sim {
	t.Helper()
	return newSimWith(t, apicsim.Options{ClientID: "client", ClientSecret: testClientSecret, TokenTTL: 8 * time.Hour})
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

// platformKeys are the managed keys that the platform still accepts.
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

// TestRenewal_needsOneShortLivedKey lets fifty tokens end, one after the other, with
// restarts and kills among them.
func TestRenewal_needsOneShortLivedKey(t *testing.T) {
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
					t.Errorf("%d renewals in the lifetimes of 50 tokens", renewals)
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
		synctest.Wait()
		for i := range 20 {
			m.must(logical.PatchOperation, "config/saas", map[string]any{"max_retries": i % 2})
			time.Sleep(time.Second)
			synctest.Wait()
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
		if log := m.log.String(); !strings.Contains(log, "[WARN]  renewing the token failed: config=saas") || strings.Contains(log, "rotating the api key failed") {
			t.Errorf("the log says %q", log)
		}
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
		synctest.Wait()
		id := m.readToken("saas")["token_id"]
		m.must(logical.PatchOperation, "config/saas", map[string]any{"max_retries": 1, "verify": true})
		synctest.Wait()
		m.must(logical.UpdateOperation, "endpoints/saas", map[string]any{"token_url": m.url + "/api/token"})
		synctest.Wait()
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

// TestRenewal_nodeThatMayNotWriteForwards has it serve what is fresh itself. That it makes no
// key is no failure, neither for those who ask nor of the replacement in the background.
func TestRenewal_nodeThatMayNotWriteForwards(t *testing.T) {
	for node, state := range map[string]consts.ReplicationState{
		"a standby": consts.ReplicationPerformanceStandby, "a secondary": consts.ReplicationPerformanceSecondary,
	} {
		t.Run(node, func(t *testing.T) {
			renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
				m.replication = state
				m.restart()
				m.readToken("saas")
				for range 3 {
					if _, err := m.do(logical.UpdateOperation, "token/saas", nil); err != logical.ErrReadOnly {
						t.Errorf("a dedicated token: the error is %v", err)
					}
				}
				time.Sleep(6*time.Hour + time.Minute)
				m.requireSample(`vault_apic_exchange_consecutive_failures{config="saas"}`, 0)
				if _, err := m.do(logical.ReadOperation, "token/saas", nil); err != logical.ErrReadOnly {
					t.Errorf("a token that is due: the error is %v", err)
				}
			})
		})
	}
}

// TestRenewal_usedUpIsLeftToItsReaders has a config end that nobody reads: its key is of no use.
func TestRenewal_usedUpIsLeftToItsReaders(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{Refuse: http.StatusForbidden}, func(m *mount) {
		time.Sleep(24 * time.Hour)
		exchanges, failures := m.sim.Counts().Exchanges, m.sample(`vault_apic_rotations_total{outcome="failure"}`)
		time.Sleep(7 * 24 * time.Hour)
		m.requireSample(`vault_apic_rotations_total{outcome="failure"}`, failures)
		if got := m.sim.Counts().Exchanges - exchanges; got != 0 {
			t.Errorf("the key is sent %d times more", got)
		}
		if status, text := m.failure(logical.ReadOperation, "token/saas", nil); status != http.StatusBadRequest || !strings.Contains(text, "write another api_key") {
			t.Errorf("a reader is told %d %s", status, text)
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

// TestRenewal_failureIsOverThoughPeopleAsk has the platform fail once, when a token is due that
// is asked for all the time. What is remembered of that is no new failure.
func TestRenewal_failureIsOverThoughPeopleAsk(t *testing.T) {
	for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		t.Run(string(op), func(t *testing.T) {
			renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
				first := m.readToken("saas")["token_id"]
				time.Sleep(5*time.Hour + 50*time.Minute)
				m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallCreate, Kind: apicsim.KindStatus, Status: http.StatusInternalServerError, Times: 1})
				for range 20 * 60 / 5 {
					time.Sleep(5 * time.Second)
					_ = m.attempt(m.Context(), op, "token/saas", nil)
				}
				if m.readToken("saas")["token_id"] == first {
					t.Error("the token is not renewed")
				}
			})
		})
	}
}

// TestRenewal_revokedLeasesCostTenExchanges has somebody who may only read tokens give
// back each lease. Each token takes a key, and comes with another source.
func TestRenewal_revokedLeasesCostTenExchanges(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		time.Sleep(time.Minute)
		synctest.Wait()
		m.must(logical.PatchOperation, "config/saas", map[string]any{"lease": true})
		before := m.sim.Counts().Exchanges
		for range 8 * 60 {
			m.revoke(m.must(logical.ReadOperation, "token/saas", nil).Secret)
			time.Sleep(time.Minute)
		}
		if got := m.sim.Counts().Exchanges - before; got < 8 || got > 11 {
			t.Errorf("%d exchanges", got)
		}
	})
}

// TestRenewal_outOfUse has a reader come just before the source of a replaced entry is closed.
// The key is the record's still, and is spent by the engine alone.
func TestRenewal_outOfUse(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		time.Sleep(time.Hour)
		e := m.backend.configs.inUse("saas")
		e.watch.active.Store(false)
		if _, err := e.source.Dedicated(m.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if !m.storedConfigOf("saas").Keys.Current.Spent {
			t.Error("a key was used and is not stored as spent")
		}
	})
}

// TestRenewal_storedTokenStaysAtItsAddress has somebody write the key again, which was used up
// long ago, with addresses of their own.
func TestRenewal_storedTokenStaysAtItsAddress(t *testing.T) {
	for _, verify := range []bool{true, false} {
		t.Run(fmt.Sprintf("verify=%t", verify), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := newSimulation(t)
				sim.SetPlatformKeys(apicsim.PlatformKeys{Refuse: http.StatusForbidden, SingleUse: true})
				var bearers atomic.Int32
				m := newPipedMount(t, sim, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.URL.Path, "/elsewhere/") && r.Header.Get("Authorization") != "" {
						bearers.Add(1)
					}
					sim.ServeHTTP(w, r)
				}))
				m.defaults = map[string]any{"token_url": m.url + "/api/token", "credentials": testCredentials}
				m.initializeBackend()
				m.bringKey("saas", testKey)
				time.Sleep(time.Hour)
				_, _ = m.do(logical.UpdateOperation, "config/saas", map[string]any{
					"api_key": testKey, "token_service": "platform", "client_id": "x", "client_secret": "made-up", "verify": verify,
					"token_url": m.url + "/elsewhere/token", "api_url": m.url + "/elsewhere",
				})
				time.Sleep(time.Hour)
				if got := bearers.Load(); got > 0 {
					t.Errorf("a token was sent there %d times", got)
				}
				resp, err := m.do(logical.ReadOperation, "token/saas", nil)
				if err == nil && !resp.IsError() && resp.Data["api_url"] == m.url+"/elsewhere" {
					t.Error("readers get the token and are told to send it there")
				}
			})
		})
	}
}

// TestRenewal_switchedOnKeepsTheCurrentToken has a key that works once and is used up.
func TestRenewal_switchedOnKeepsTheCurrentToken(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		m.sim.AddLimitedKey("other-key", apicsim.KeyOptions{SingleUse: true, Life: 5 * time.Minute})
		m.must(logical.UpdateOperation, "config/saas", m.configData(map[string]any{"api_key": "other-key", "token_service": "platform", "renew": false}))
		time.Sleep(time.Hour)
		synctest.Wait()
		m.must(logical.PatchOperation, "config/saas", map[string]any{"renew": true})
		m.requireReads(24 * time.Hour)
	})
}

// TestRenewal_refusedTokenIsSentOnce has somebody without the key try twenty times to have the
// stored token sent.
func TestRenewal_refusedTokenIsSentOnce(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		time.Sleep(time.Hour)
		m.sim.InjectKeyFault(apicsim.KeyFault{Kind: apicsim.KindStatus, Status: http.StatusUnauthorized})
		before := m.sim.Counts().KeyCalls
		for range 20 {
			_ = m.attempt(m.Context(), logical.PatchOperation, "config/saas", map[string]any{"verify": true})
		}
		if got := m.sim.Counts().KeyCalls - before; got > 2 {
			t.Errorf("%d calls", got)
		}
	})
}

// TestRenewal_deletionsRefused leaves keys to their end, and goes on.
func TestRenewal_deletionsRefused(t *testing.T) {
	for name, platform := range map[string]apicsim.PlatformKeys{"their end is told": {}, "their end is not told": {TokenTimes: true}} {
		t.Run(name, func(t *testing.T) {
			renewalTest(t, platform, func(m *mount) {
				m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallDelete, Kind: apicsim.KindStatus, Status: http.StatusForbidden})
				m.requireReads(5 * 24 * time.Hour)
				if n := len(m.storedConfigOf("saas").Keys.Retired); n > 6 {
					t.Errorf("%d keys are retired", n)
				}
			})
		})
	}
}
