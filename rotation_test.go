// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// rotationTest runs in a bubble in which time passes when everybody waits, on a
// mount with one config, us-south, whose key is imported.
//
// It runs in parallel with other tests: a bubble of its own time shares nothing with them.
func rotationTest(t *testing.T, test func(m *mount)) {
	t.Helper()
	t.Parallel()
	rotationTestInTurn(t, test)
}

// rotationTestInTurn is rotationTest for subtests of which one decides whether there is
// a next.
func rotationTestInTurn(t *testing.T, test func(m *mount)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		m.writeConfig("us-south", nil)
		test(m)
	})
}

// gaugedTest is rotationTest that counts the calls which reach the services.
func gaugedTest(t *testing.T, test func(m *mount, calls *callGauge)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		calls := &callGauge{handler: sim}
		m := newPipedMount(t, sim, calls)
		m.defaults = map[string]any{"iam_url": m.url}
		m.begin()
		m.writeConfig("us-south", nil)
		test(m, calls)
	})
}

// newScriptedMount is a mount with one config whose key was rotated. Its services answer what
// answer holds, once it holds something, to the requests that are hit.
func newScriptedMount(t *testing.T, isHit func(*http.Request) bool) (m *mount, answer *atomic.Value) {
	t.Helper()
	sim := newSim(t)
	answer = &atomic.Value{}
	m = newPipedMount(t, sim, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, _ := answer.Load().(string); text != "" && isHit(r) {
			_, _ = io.WriteString(w, text)
			return
		}
		sim.ServeHTTP(w, r)
	}))
	m.defaults = map[string]any{"iam_url": m.url}
	m.begin()
	m.writeConfig("us-south", nil)
	m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "24h"})
	synctest.Wait() // A write would meet what follows a rotation in the background.
	return m, answer
}

func newRotationMount(t *testing.T) *mount {
	t.Helper()
	sim := newSim(t)
	m := newPipedMount(t, sim, sim)
	m.defaults = map[string]any{"iam_url": m.url}
	m.begin()
	return m
}

// begin initializes the mount and lets the time pass in which nothing is deleted.
func (m *mount) begin() {
	m.Helper()
	m.initializeBackend()
	time.Sleep(rotation.LateWriteTime + time.Second)
	synctest.Wait()
}

// rotate replaces the key and has the old one deleted at once.
func (m *mount) rotate(name string) *logical.Response {
	m.Helper()
	return m.must(logical.UpdateOperation, "config/"+name+"/rotate", map[string]any{"grace_period": "0s"})
}

// tick is what Vault does about once a minute.
func (m *mount) tick() {
	m.Helper()
	_, err := m.backend.HandleRequest(context.Background(), &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
	if err != nil {
		m.Fatal(err)
	}
	synctest.Wait()
}

// liveKeys are the keys that IAM holds.
func (m *mount) liveKeys() (live []apicsim.KeyInfo) {
	for _, key := range m.sim.Keys() {
		if key.DeletedAt.IsZero() {
			live = append(live, key)
		}
	}
	return live
}

// managedLiveKeys are the keys that IAM holds and rotations made.
func (m *mount) managedLiveKeys() []apicsim.KeyInfo {
	return slices.DeleteFunc(m.liveKeys(), func(key apicsim.KeyInfo) bool { return !key.CreatedByAPI })
}

// storedConfigOf is the stored config, or nil.
func (m *mount) storedConfigOf(name string) *config {
	m.Helper()
	entry, err := m.storage.Storage.Get(context.Background(), configStoragePrefix+name)
	if err != nil {
		m.Fatal(err)
	}
	if entry == nil {
		return nil
	}
	stored, err := decodeConfig(name, entry.Value)
	if err != nil {
		m.Fatal(err)
	}
	return stored
}

func (m *mount) storedKeyID(name string) string {
	m.Helper()
	stored := m.storedConfigOf(name)
	if stored == nil {
		return ""
	}
	return m.sim.KeyID(stored.APIKey)
}

// requireOneKey holds the promise of rotation: the config's key works, and IAM
// holds no other that rotations made.
func (m *mount) requireOneKey(name string) {
	m.Helper()
	m.requireOneKeyOf(name, m.sim.Keys()[0].IAMID)
}

func (m *mount) requireOneKeyOf(name, iamID string) {
	m.Helper()
	m.must(logical.UpdateOperation, "token/"+name, nil)
	stored := m.storedKeyID(name)
	live := slices.DeleteFunc(m.liveKeys(), func(key apicsim.KeyInfo) bool { return key.IAMID != iamID })
	if !slices.ContainsFunc(live, func(key apicsim.KeyInfo) bool { return key.KeyID == stored }) {
		m.Fatal("IAM does not hold the stored key")
	}
	for _, key := range live {
		if key.CreatedByAPI && key.KeyID != stored {
			m.Fatalf("IAM holds the key %s that rotation made and nobody stores", key.Name)
		}
	}
}

// pending says what configs and deleted ones have left to do at IAM, empty for
// nothing. A key that a config took back waits, rightly, for as long as it has it.
func (m *mount) pending() string {
	m.Helper()
	inUse := make(map[string]bool)
	for _, name := range m.list(configStoragePrefix) {
		c := m.storedConfigOf(name)
		inUse[c.APIKey] = true
		if keys := c.Keys; keys.Intent != nil || keys.Candidate != nil || len(keys.Retired) > 0 {
			return fmt.Sprintf("config %s has an intent: %t, a candidate: %t, and %d retired keys", name, keys.Intent != nil, keys.Candidate != nil, len(keys.Retired))
		}
	}
	for _, name := range m.list(tombstoneStoragePrefix) {
		for _, uid := range m.list(tombstoneStoragePrefix + name) {
			record, err := m.backend.configs.tombstoneRecord(context.Background(), rotation.Ref{Config: strings.TrimSuffix(name, "/"), Tombstone: uid})
			if err != nil || record == nil {
				m.Fatalf("a tombstone cannot be read: %v", err)
			}
			if record.Intent != nil || slices.ContainsFunc(record.Retired, func(k rotation.Retired) bool { return !inUse[string(k.Value)] }) {
				return "a tombstone is left of " + name
			}
		}
	}
	return ""
}

func (m *mount) list(prefix string) []string {
	m.Helper()
	names, err := m.storage.Storage.List(context.Background(), prefix)
	if err != nil {
		m.Fatal(err)
	}
	return names
}

func (m *mount) requireNothingPending() {
	m.Helper()
	if pending := m.pending(); pending != "" {
		m.Fatal(pending)
	}
}

// waitForCleanup lets the time pass that a cleanup takes, at most a day and a bit: one
// that was refused is tried again a day later.
func (m *mount) waitForCleanup() {
	m.Helper()
	m.ticks(12 * time.Minute)
	for end := time.Now().Add(26 * time.Hour); m.pending() != "" && time.Now().Before(end); {
		time.Sleep(time.Minute)
		synctest.Wait()
	}
}

func TestRotation_replacesTheKeyAndDeletesTheOldOne(t *testing.T) {
	for _, service := range []string{"login", "iam"} {
		t.Run(service, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newRotationMount(t)
				m.writeConfig("us-south", map[string]any{"token_service": service, "token_url": m.url + servicePaths()[service]})
				before := m.readToken("us-south")["token_id"]
				answered := m.rotate("us-south").Data
				synctest.Wait()
				if live := m.liveKeys(); len(live) != 1 || live[0].ID != answered["api_key_id"] {
					t.Fatalf("IAM holds %d keys, and not just the one answered", len(live))
				}
				m.requireOneKey("us-south")
				m.requireNothingPending()
				if after := m.readToken("us-south")["token_id"]; after == before {
					t.Fatal("readers still share a token of the old key")
				}
				config := m.must(logical.ReadOperation, "config/us-south", nil).Data
				for _, field := range []string{"api_key_id", "last_vault_rotation"} {
					if config[field] != answered[field] || config[field] == nil {
						t.Errorf("%s is %v in the config and was answered as %v", field, config[field], answered[field])
					}
				}
			})
		})
	}
}

func TestRotation_isRefusedBeforeAnythingIsCreated(t *testing.T) {
	tests := map[string]struct {
		prepare func(m *mount)
		status  int
		says    string
	}{
		"of a config that does not exist": {
			func(m *mount) { m.must(logical.DeleteOperation, "config/us-south", nil) }, http.StatusBadRequest, "there is no config",
		},
		"of a locked key": {
			func(m *mount) { m.sim.LockKey(testKey) }, http.StatusBadRequest, "locked",
		},
		"of a key that another config holds too": {
			func(m *mount) { m.writeConfig("eu-de", nil) }, http.StatusBadRequest, `"eu-de" holds the same API key`,
		},
		"of a key that IAM does not know": {
			func(m *mount) { m.sim.RevokeKey(testKey) }, http.StatusBadRequest, "BXNIM0415E",
		},
		"while IAM fails": {
			func(m *mount) { m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 500}) }, http.StatusBadGateway, `config "us-south" keeps its API key: iam token service`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				test.prepare(m)
				status, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
				if status != test.status || !strings.Contains(text, test.says) {
					t.Errorf("answered %d %s", status, text)
				}
				requireNoKey(t, text)
				if own := m.managedLiveKeys(); len(own) != 0 || m.sim.Counts().KeysCreated != 0 {
					t.Error("a key was created")
				}
				m.requireNothingPending()
			})
		})
	}
}

func TestRotation_failureNamesTheRequestInTheLog(t *testing.T) {
	named := regexp.MustCompile(`IBM's support finds the request as [0-9a-f-]{36}`)
	for name, inject := range map[string]func(*mount){
		"of the login": func(m *mount) { m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 500, Body: "{}"}) },
		"of a call": func(m *mount) {
			m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallCreate, Kind: apicsim.KindStatus, Status: 403, Body: "{}"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				inject(m)
				_, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
				if !named.MatchString(text) {
					t.Errorf("the answer does not name the request: %s", text)
				}
				for line := range strings.Lines(m.log.String()) {
					if strings.Contains(line, "rotating the api key failed") && named.MatchString(line) {
						return
					}
				}
				t.Error("no line of the log names the request")
			})
		})
	}
}

func TestRotation_platformWithoutRenewalIsRefused(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{
		"token_service": "platform", "token_url": m.url + "/api/token", "client_id": "client", "client_secret": testClientSecret, "renew": false,
	})
	status, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
	if status != http.StatusBadRequest || !strings.Contains(text, "has renew=false") {
		t.Fatalf("answered %d %s", status, text)
	}
	if failures := m.must(logical.ReadOperation, "status/us-south", nil).Data["consecutive_rotation_failures"]; failures != nil {
		t.Errorf("status tells of %v failed rotations", failures)
	}
	exposed := string(m.must(logical.ReadOperation, "metrics", nil).Data[logical.HTTPRawBody].([]byte))
	if !strings.Contains(exposed, `vault_apic_rotations_total{outcome="failure"} 0`) {
		t.Error("metrics tell of a rotation that failed, for which an alert is")
	}
	status, text = m.failure(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "24h"})
	if status != http.StatusBadRequest || !strings.Contains(text, "renew must be true for a rotation") {
		t.Fatalf("answered %d %s", status, text)
	}
}

func TestRotation_waitsForANewKeyRefusedForAMinute(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: time.Minute})
		m.requireLongRotation()
		m.waitForCleanup()
		if made := m.managedLiveKeys(); len(made) != 1 || made[0].KeyID != m.storedKeyID("us-south") {
			t.Error("the new key is not stored")
		}
		m.requireOneKey("us-south")
		m.requireNothingPending()
	})
}

// requireLongRotation asks for a rotation that its caller does not see the end of.
func (m *mount) requireLongRotation() {
	m.Helper()
	began := time.Now()
	status, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": 0})
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "goes on") {
		m.Errorf("responded %d %s", status, text)
	}
	if waited := time.Since(began); waited >= 55*time.Second {
		m.Errorf("the response took %s, and Vault's client gives up after 60 s", waited)
	}
}

// A new key that is refused for too long is deleted, and the old one stays.
func TestRotation_newKeyRefusedForTooLong(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: 24 * time.Hour})
		m.requireLongRotation()
		m.ticks(20 * time.Minute)
		why, _ := m.must(logical.ReadOperation, "status/us-south", nil).Data["last_rotation_error"].(string)
		if !strings.Contains(why, "the new key got no token") {
			t.Errorf("status says %q", why)
		}
		m.requireOneKey("us-south")
		if len(m.managedLiveKeys()) != 0 {
			t.Error("the new key is left at IAM")
		}
		m.requireNothingPending()
	})
}

func TestRotation_twoAtOnceMakeOneSuccessor(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: 10 * time.Second})
		ids := make([]any, 5)
		var all sync.WaitGroup
		for i := range ids {
			all.Go(func() { ids[i] = m.rotate("us-south").Data["api_key_id"] })
		}
		all.Wait()
		for _, id := range ids {
			if id == nil || id != ids[0] {
				t.Fatal("rotations answered different keys")
			}
		}
		if got := m.sim.Counts().KeysCreated; got != 1 {
			t.Fatalf("%d keys were created", got)
		}
	})
}

func TestRotation_continuesWithoutItsCaller(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: 20 * time.Second})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := m.backend.HandleRequest(ctx, &logical.Request{Operation: logical.UpdateOperation, Path: "config/us-south/rotate", Storage: m.storage})
		if err == nil || !strings.Contains(err.Error(), "goes on") {
			t.Fatalf("error is %v", err)
		}
		m.waitForCleanup()
		if made := m.managedLiveKeys(); len(made) != 1 {
			t.Fatal("the rotation did not go on")
		}
		m.requireOneKey("us-south")
	})
}

// TestRotation_leakOfTheKeyWhileItIsRotated asks for the old key's end at once, while a
// rotation that somebody asked for without that waits for the new one.
func TestRotation_leakOfTheKeyWhileItIsRotated(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: 20 * time.Second})
		first := make(chan struct{})
		go func() {
			defer close(first)
			m.must(logical.UpdateOperation, "config/us-south/rotate", nil)
		}()
		time.Sleep(time.Second)
		m.rotate("us-south")
		<-first
		m.sim.SetLag(apicsim.Lag{})
		time.Sleep(time.Second)
		synctest.Wait()
		m.requireKeyWorks(testKey, false)
		m.requireOneKey("us-south")
	})
}

// TestRotation_writesBetweenItsSteps writes settings while the new key is waited for,
// and while a step is taken.
func TestRotation_writesBetweenItsSteps(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: 10 * time.Second})
		rotated := make(chan struct{})
		go func() {
			defer close(rotated)
			m.rotate("us-south")
		}()
		time.Sleep(time.Second)
		m.must(logical.UpdateOperation, "config/us-south", map[string]any{"max_retries": 1})
		<-rotated
		claim, err := m.backend.configs.claim(m.Context(), rotation.Ref{Config: "us-south"}, "rotated")
		if err != nil {
			t.Fatal(err)
		}
		status, text := m.failure(logical.UpdateOperation, "config/us-south", map[string]any{"max_retries": 2})
		if status != http.StatusConflict || !strings.Contains(text, "is being rotated") {
			t.Errorf("responded %d %s", status, text)
		}
		claim.Release()
		if got := m.must(logical.ReadOperation, "config/us-south", nil).Data["max_retries"]; got != 1 {
			t.Errorf("max_retries is %v", got)
		}
		m.requireOneKey("us-south")
	})
}

// TestRotation_anotherKeyWhileTheCandidateWaits has an operator write a key of
// their own while the new one is not known everywhere yet.
func TestRotation_anotherKeyWhileTheCandidateWaits(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: 10 * time.Minute})
		m.requireLongRotation()
		key := m.newKey()
		m.sim.SetLag(apicsim.Lag{})
		m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": key}))
		m.waitForCleanup()
		if got := m.storedKeyID("us-south"); got != m.sim.KeyID(key) {
			t.Error("the operator's key is not the stored one")
		}
		if made := m.managedLiveKeys(); len(made) != 0 {
			t.Errorf("%d keys that rotation made are left at IAM", len(made))
		}
		m.requireNothingPending()
	})
}

// TestRotation_withoutGrace has the old key deleted when the rotation is answered: it may
// have leaked.
func TestRotation_withoutGrace(t *testing.T) {
	rotationTest(t, func(m *mount) {
		resp := m.rotate("us-south")
		if live := m.liveKeys(); len(live) != 1 || !live[0].CreatedByAPI {
			t.Errorf("IAM holds %d keys when the rotation is answered", len(live))
		}
		if retired, ok := resp.Data["retired_api_keys"]; ok {
			t.Errorf("the response says of the old key %v", retired)
		}
	})
}

// TestRotation_rightAfterTheStart deletes nothing before all configs are known, and does
// not call that a failure.
func TestRotation_rightAfterTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		m := newPipedMount(t, sim, sim)
		m.defaults = map[string]any{"iam_url": m.url}
		m.initializeBackend()
		m.writeConfig("us-south", nil)
		m.rotate("us-south")
		for range 35 {
			time.Sleep(time.Second)
			if why := m.must(logical.ReadOperation, "status/us-south", nil).Data["cleanup_errors"]; why != nil {
				t.Fatalf("the status says %v", why)
			}
		}
		synctest.Wait()
		m.requireOneKey("us-south")
		m.requireNothingPending()
	})
}

// TestRotation_keyThatAnotherConfigUses has a second config take the old key before its
// deletion is decided: it is kept until that config gives it up.
func TestRotation_keyThatAnotherConfigUses(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "2m"})
		m.writeConfig("eu-de", nil)
		m.ticks(10 * time.Minute)
		m.requireOneKey("us-south")
		m.must(logical.UpdateOperation, "token/eu-de", nil)
		why, _ := m.must(logical.ReadOperation, "status/us-south", nil).Data["cleanup_errors"].(map[string]any)
		if len(why) != 1 || !strings.Contains(fmt.Sprint(why), `config "eu-de" holds the same api key`) {
			t.Errorf("the status says %v", why)
		}
		m.must(logical.DeleteOperation, "config/eu-de", nil)
		m.ticks(2 * time.Hour)
		if live := m.liveKeys(); len(live) != 1 || !live[0].CreatedByAPI {
			t.Errorf("IAM holds %d keys", len(live))
		}
		m.requireNothingPending()
	})
}

// TestRotation_keyWhoseDeletionIsDecided is taken by no config any more.
func TestRotation_keyWhoseDeletionIsDecided(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "delete", Kind: apicsim.KindStatus, Status: 503})
		m.rotate("us-south")
		for name, op := range map[string]logical.Operation{"us-south": logical.UpdateOperation, "eu-de": logical.CreateOperation} {
			status, text := m.failure(op, "config/"+name, m.configData(map[string]any{"verify": false}))
			if status != http.StatusBadRequest || !strings.Contains(text, "being deleted at its issuer") {
				t.Errorf("%s: responded %d %s", name, status, text)
			}
		}
		m.sim.ClearKeyFaults()
		m.waitForCleanup()
		m.requireOneKey("us-south")
		m.requireNothingPending()
	})
}

// TestRotation_wayBackWithinTheGracePeriod enables a key that was disabled half-way
// and writes it back.
func TestRotation_wayBackWithinTheGracePeriod(t *testing.T) {
	rotationTest(t, func(m *mount) {
		data := m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "1h"}).Data
		retired, _ := data["retired_api_keys"].(map[string]any)
		old := m.sim.Keys()[0].ID
		until, err := time.Parse(time.RFC3339, fmt.Sprint(retired[old]))
		if left := time.Until(until); err != nil || left < 59*time.Minute || left > time.Hour {
			t.Errorf("the response says of the old key %v", retired)
		}
		m.ticks(20 * time.Minute)
		m.requireKeyWorks(testKey, true)
		m.ticks(20 * time.Minute)
		m.requireKeyWorks(testKey, false)
		status := m.must(logical.ReadOperation, "status/us-south", nil).Data["retired_api_keys"].(map[string]any)
		if status[old] != retired[old] {
			t.Errorf("the status says of the old key %v, and the response said %v", status, retired)
		}
		m.sim.EnableKey(testKey)
		m.must(logical.UpdateOperation, "config/us-south", m.configData(nil))
		m.ticks(2 * time.Hour)
		if live := m.liveKeys(); len(live) != 1 || live[0].CreatedByAPI {
			t.Errorf("IAM holds %d keys", len(live))
		}
		m.must(logical.UpdateOperation, "token/us-south", nil)
		m.requireNothingPending()
	})
}

// TestRotation_gracePeriodEndsWithTheDeletion lets it end.
func TestRotation_gracePeriodEndsWithTheDeletion(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.UpdateOperation, "config/us-south/rotate", nil)
		m.ticks(4 * time.Minute)
		if live := m.liveKeys(); len(live) != 2 {
			t.Fatalf("IAM holds %d keys during the grace period", len(live))
		}
		m.ticks(3 * time.Minute)
		m.requireOneKey("us-south")
		if live := m.liveKeys(); len(live) != 1 {
			t.Fatalf("IAM holds %d keys after the grace period", len(live))
		}
		m.requireNothingPending()
	})
}

func TestRotation_invalidGracePeriods(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	for field, data := range map[string]map[string]any{
		"rotation_grace_period must be a duration":     {"rotation_grace_period": "169h"},
		"rotation_grace_period must be less than half": {"rotation_grace_period": "30m", "rotation_period": "1h"},
	} {
		status, text := m.failure(logical.PatchOperation, "config/us-south", data)
		if status != http.StatusBadRequest || !strings.Contains(text, field) {
			t.Errorf("responded %d %s", status, text)
		}
	}
	status, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "169h"})
	if status != http.StatusBadRequest || !strings.Contains(text, "grace_period must be a duration") {
		t.Errorf("responded %d %s", status, text)
	}
}

// requireKeyWorks asks the token service, not the engine.
func (m *mount) requireKeyWorks(key string, want bool) {
	m.Helper()
	resp := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, "/apikey?"+url.Values{"apikey": {key}}.Encode(), nil)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	m.sim.ServeHTTP(resp, req)
	if works := resp.Code == http.StatusOK; works != want {
		m.Fatalf("the key works: %t (HTTP %d)", works, resp.Code)
	}
}

func TestConfigDelete_duringARotationDeletesBothKeys(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: 30 * time.Second})
		failed := make(chan string)
		go func() {
			_, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
			failed <- text
		}()
		time.Sleep(time.Second)
		if len(m.managedLiveKeys()) != 1 {
			t.Fatal("the rotation has made no key yet")
		}
		m.must(logical.DeleteOperation, "config/us-south", nil)
		if text := <-failed; !strings.Contains(text, "there is no config") {
			t.Errorf("the rotation responded %s", text)
		}
		m.waitForCleanup()
		if len(m.managedLiveKeys()) != 0 || len(m.liveKeys()) != 1 {
			t.Error("not just the key that somebody imported is left")
		}
		m.requireNothingPending()
	})
}

// TestRotation_unloadInTheMiddle goes on in the next process.
func TestRotation_unloadInTheMiddle(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetLag(apicsim.Lag{Tokens: 30 * time.Second})
		failed := make(chan string)
		unloaded := m.backend
		go func() {
			_, err := unloaded.HandleRequest(context.Background(), &logical.Request{Operation: logical.UpdateOperation, Path: "config/us-south/rotate", Storage: m.storage})
			failed <- fmt.Sprint(err)
		}()
		time.Sleep(time.Second)
		if len(m.managedLiveKeys()) != 1 {
			t.Fatal("the rotation has made no key yet")
		}
		m.restart()
		if text := <-failed; !strings.Contains(text, "goes on") {
			t.Errorf("the rotation responded %s", text)
		}
		m.begin()
		m.waitForCleanup()
		m.requireOneKey("us-south")
		if live := m.liveKeys(); len(live) != 1 || !live[0].CreatedByAPI {
			t.Error("the next process has not finished the rotation")
		}
		m.requireNothingPending()
	})
}

// A managed key is deleted with its config, and an imported one is not.
func TestConfigDelete_deletesManagedKeysOnly(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.writeConfig("imported", map[string]any{"api_key": m.newKey()})
		id := m.rotate("us-south").Data["api_key_id"].(string)
		synctest.Wait()
		time.Sleep(3 * time.Minute) // Until IAM's "no such key" could be believed of the new one.
		resp := m.must(logical.DeleteOperation, "config/us-south", nil)
		if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "Deleted at IBM, because rotations had made them: "+id) {
			t.Errorf("warnings are %q", resp.Warnings)
		}
		m.must(logical.DeleteOperation, "config/imported", nil)
		if live := m.liveKeys(); len(live) != 1 || live[0].CreatedByAPI {
			t.Fatalf("IAM holds %d keys", len(live))
		}
		m.requireNothingPending()
	})
}

// TestConfigDelete_whileIAMFails deletes the config, tells of the key, and deletes
// that when IAM is back, though another process runs by then.
func TestConfigDelete_whileIAMFails(t *testing.T) {
	rotationTest(t, func(m *mount) {
		id := m.rotate("us-south").Data["api_key_id"].(string)
		synctest.Wait()
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503})
		resp := m.must(logical.DeleteOperation, "config/us-south", nil)
		if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "Still to be deleted at IBM") || !strings.Contains(resp.Warnings[0], id) {
			t.Fatalf("warnings are %q", resp.Warnings)
		}
		if m.storedKeyID("us-south") != "" {
			t.Fatal("the config is still there")
		}
		m.writeConfig("us-south", map[string]any{"api_key": m.newKey(), "verify": false})
		m.restart()
		m.begin()
		m.sim.ClearFault()
		m.ticks(2 * time.Hour)
		if len(m.managedLiveKeys()) != 0 {
			t.Fatal("the key is left at IAM")
		}
		m.must(logical.UpdateOperation, "token/us-south", nil)
		m.requireNothingPending()
	})
}

func TestConfigWrite_replacedManagedKeyIsDeleted(t *testing.T) {
	rotationTest(t, func(m *mount) {
		id := m.rotate("us-south").Data["api_key_id"].(string)
		synctest.Wait()
		resp := m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": m.newKey()}))
		if resp == nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], id+", which a rotation made for this config, will be deleted") {
			t.Errorf("responded %v", resp)
		}
		config := m.must(logical.ReadOperation, "config/us-south", nil).Data
		if config["api_key_id"] != nil || config["last_vault_rotation"] != nil {
			t.Error("the config still tells of the rotation of another key")
		}
		m.waitForCleanup()
		m.requireOneKey("us-south")
		m.requireNothingPending()
	})
}

// TestRotation_keyOfAnotherIdentity replaces a managed key by one that may not delete
// it, while IAM fails: the retired key itself keeps the right.
func TestRotation_keyOfAnotherIdentity(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.rotate("us-south")
		synctest.Wait()
		m.sim.AddLimitedKey("another-identity's", apicsim.KeyOptions{IAMID: "IBMid-another"})
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "delete", Kind: apicsim.KindStatus, Status: 503})
		m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": "another-identity's"}))
		m.ticks(10 * time.Minute)
		if len(m.managedLiveKeys()) != 1 {
			t.Fatal("the key was deleted though IAM fails")
		}
		m.sim.ClearKeyFaults()
		m.ticks(2 * time.Hour)
		if len(m.managedLiveKeys()) != 0 {
			t.Error("the key is left at IAM")
		}
		m.must(logical.UpdateOperation, "token/us-south", nil)
		m.requireNothingPending()
	})
}

// TestRotation_keysAreOnlyInSealedEntries looks for imported keys and for those that
// rotations made, in what is stored, logged, sent and answered.
func TestRotation_keysAreOnlyInSealedEntries(t *testing.T) {
	rotationTest(t, func(m *mount) {
		var keys, elsewhere []string
		m.storage.watch = func(entry *logical.StorageEntry) {
			if strings.HasPrefix(entry.Key, tombstoneStoragePrefix) {
				return // It is seal-wrapped, too.
			}
			if !strings.HasPrefix(entry.Key, configStoragePrefix) {
				elsewhere = append(elsewhere, entry.Key+string(entry.Value))
				return
			}
			stored, err := decodeConfig("us-south", entry.Value)
			if err != nil {
				t.Error(err)
				return
			}
			keys = append(keys, stored.APIKey)
		}
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
		elsewhere = append(elsewhere, fmt.Sprint(m.rotate("us-south").Data))
		m.ticks(2 * time.Hour)
		for _, call := range []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallDelete, apicsim.CallDetails} {
			for _, fault := range []apicsim.KeyFault{
				{Kind: apicsim.KindStatus}, {Kind: apicsim.KindStatus, Status: 200, Body: `{"errors":["{key}"]}`},
				{Kind: apicsim.KindStatus, Status: 200, Body: "{key}"}, {Kind: apicsim.KindReset},
			} {
				fault.Call, fault.After = call, true
				m.sim.InjectKeyFault(fault)
				resp, err := m.do(logical.UpdateOperation, "config/us-south/rotate", nil)
				elsewhere = append(elsewhere, fmt.Sprint(resp, err))
				m.sim.ClearKeyFaults()
				m.waitForCleanup()
			}
		}
		for _, path := range []string{"config/us-south", "status/us-south"} {
			elsewhere = append(elsewhere, fmt.Sprint(m.must(logical.ReadOperation, path, nil).Data))
		}
		exposed := m.must(logical.ReadOperation, "metrics", nil).Data[logical.HTTPRawBody].([]byte)
		elsewhere = append(elsewhere, string(exposed))
		m.must(logical.DeleteOperation, "config/us-south", nil)
		elsewhere = append(elsewhere, m.log.String(), fmt.Sprint(m.events.sent))

		slices.Sort(keys)
		if keys = slices.Compact(keys); len(keys) < 5 || len(elsewhere) < 15 {
			t.Fatalf("there were only %d keys, and %d texts to search", len(keys), len(elsewhere))
		}
		for _, key := range keys {
			if slices.ContainsFunc(elsewhere, func(text string) bool { return strings.Contains(text, key) }) {
				t.Fatal("a key is outside of its entry")
			}
		}
	})
}

// TestRotation_anyStorageFailureLeavesOneKey fails one storage call after the other,
// before and after its effect.
func TestRotation_anyStorageFailureLeavesOneKey(t *testing.T) {
	for _, late := range []bool{false, true} {
		for n := int64(1); ; n++ {
			passed := false
			t.Run(fmt.Sprintf("call %d, late %v", n, late), func(t *testing.T) {
				rotationTestInTurn(t, func(m *mount) {
					m.must(logical.UpdateOperation, "token/us-south", nil)
					m.storage.failLate.Store(late)
					m.storage.failNth(n)
					resp, err := m.do(logical.UpdateOperation, "config/us-south/rotate", nil)
					passed = m.storage.calls.Load() < m.storage.failAt.Load()
					m.storage.failNth(-1)
					if err == nil && resp.IsError() {
						err = resp.Error()
					}
					if err != nil {
						requireNoKey(t, err.Error())
					}
					m.waitForCleanup()
					m.requireOneKey("us-south")
					m.requireNothingPending()
				})
			})
			if passed || t.Failed() {
				if n < 8 {
					t.Fatalf("a rotation makes fewer than %d storage calls, or failed", n)
				}
				break
			}
		}
	}
}

// TestRotation_lateCreationIsCleanedUp has an IAM whose lists lag behind what was
// created.
func TestRotation_lateCreationIsCleanedUp(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"request_timeout": "60s", "max_retries": 10})
		m.sim.SetLag(apicsim.Lag{List: 20 * time.Second, Get: 20 * time.Second})
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "create", Kind: apicsim.KindStatus, Status: 429, Latency: 25 * time.Second, Times: 4})
		go func() {
			time.Sleep(101 * time.Second)
			m.sim.InjectKeyFault(apicsim.KeyFault{Call: "create", Kind: apicsim.KindReset, After: true, Times: 1})
		}()
		m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
		time.Sleep(2 * time.Minute)
		m.sim.ClearKeyFaults()
		m.waitForCleanup()
		m.requireOneKey("us-south")
		m.requireNothingPending()
	})
}

// newKey makes another key of the same identity that somebody may bring.
func (m *mount) newKey() string {
	key := fmt.Sprintf("%s-%d", testKey, len(m.sim.Keys()))
	m.sim.AddKey(key)
	return key
}

// TestRotation_issuerThatNamesAKeyByAValue has an issuer name a key by the value of a
// replaced one that still works: in its list, in what it says of the key in use, and in
// its answer to a creation.
func TestRotation_issuerThatNamesAKeyByAValue(t *testing.T) {
	for call, isHit := range map[string]func(r *http.Request) bool{
		"a list":     func(r *http.Request) bool { return r.Method == http.MethodGet && r.URL.Path == "/v1/apikeys" },
		"details":    func(r *http.Request) bool { return r.URL.Path == "/v1/apikeys/details" },
		"a creation": func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Path == "/v1/apikeys" },
	} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, answer := newScriptedMount(t, isHit)
				keys := m.storedConfigOf("us-south").Keys
				m.sim.AddKey("imported-key")
				m.writeConfig("us-south", map[string]any{"api_key": "imported-key", "rotation_grace_period": "24h"})
				key := fmt.Sprintf(`{"id":%q,"name":"vault-apic-%s-x","iam_id":%q,"account_id":%q,"apikey":"another-value"}`,
					testKey, keys.UID, keys.Current.Binding.Identity, keys.Current.Binding.AccountID)
				if call == "a list" {
					key = `{"apikeys":[` + key + `]}`
				}
				answer.Store(key)
				for range 12 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					err := m.attempt(ctx, logical.UpdateOperation, "config/us-south/rotate", nil)
					cancel()
					requireNoKey(t, fmt.Sprint(err))
					time.Sleep(time.Minute)
				}
				requireNoKey(t, fmt.Sprint(m.must(logical.ReadOperation, "status/us-south", nil).Data))
				requireNoKey(t, fmt.Sprint(m.must(logical.ReadOperation, "config/us-south", nil).Data))
			})
		})
	}
}

// TestRotation_wrongDateKeepsNoKeyAlive has a gateway date an issuer's answers far ahead
// while the key is replaced, and not any more afterwards.
func TestRotation_wrongDateKeepsNoKeyAlive(t *testing.T) {
	for _, grace := range []string{"0s", "1h"} {
		synctest.Test(t, func(t *testing.T) {
			sim := newSim(t)
			var wrong atomic.Bool
			m := newPipedMount(t, sim, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer := httptest.NewRecorder()
				sim.ServeHTTP(answer, r)
				maps.Copy(w.Header(), answer.Header())
				if wrong.Load() && r.Method != http.MethodDelete {
					w.Header().Set("Date", "Tue, 01 Dec 2099 00:00:00 GMT")
				}
				w.WriteHeader(answer.Code)
				_, _ = answer.Body.WriteTo(w)
			}))
			m.defaults = map[string]any{"iam_url": m.url}
			m.begin()
			m.writeConfig("us-south", nil)
			wrong.Store(true)
			m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallGet, Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable, Times: 3})
			m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": grace})
			wrong.Store(false)
			time.Sleep(3 * time.Hour)
			synctest.Wait()
			if live := m.liveKeys(); len(live) != 1 {
				t.Errorf("with a grace period of %s, %d keys live on: %v", grace, len(live), m.must(logical.ReadOperation, "status/us-south", nil).Data)
			}
		})
	}
}
