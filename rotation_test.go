// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// rotationTest runs in a bubble in which time passes when everybody waits, on a
// mount with one config, us-south, whose key somebody brought.
func rotationTest(t *testing.T, test func(m *mount)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		m.writeConfig("us-south", nil)
		test(m)
	})
}

func newRotationMount(t *testing.T) *mount {
	t.Helper()
	sim, err := apicsim.New(apicsim.Options{Keys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	m := newPipedMount(t, sim, sim)
	m.defaults = map[string]any{"iam_url": m.url}
	return m
}

func (m *mount) rotate(name string) *logical.Response {
	m.Helper()
	return m.must(logical.UpdateOperation, "config/"+name+"/rotate", nil)
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

// ownLiveKeys are the keys that IAM holds and rotations made.
func (m *mount) ownLiveKeys() []apicsim.KeyInfo {
	return slices.DeleteFunc(m.liveKeys(), func(key apicsim.KeyInfo) bool { return !key.CreatedByAPI })
}

func (m *mount) storedKeyID(name string) string {
	m.Helper()
	stored, err := loadConfig(context.Background(), m.storage, name)
	if err != nil {
		m.Fatal(err)
	}
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

func (m *mount) requireNoWAL() {
	m.Helper()
	ids, err := framework.ListWAL(context.Background(), m.storage)
	if err != nil {
		m.Fatal(err)
	}
	if len(ids) > 0 {
		m.Fatalf("%d write-ahead entries are left", len(ids))
	}
}

func TestARotationReplacesTheKeyAndDeletesTheOldOne(t *testing.T) {
	for _, service := range []string{"login", "iam"} {
		t.Run(service, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newRotationMount(t)
				m.writeConfig("us-south", map[string]any{"token_service": service, "token_url": m.url + servicePaths()[service]})
				before := m.readToken("us-south")["token_id"]
				answered := m.rotate("us-south").Data
				if live := m.liveKeys(); len(live) != 1 || live[0].ID != answered["api_key_id"] {
					t.Fatalf("IAM holds %d keys, and not just the one answered", len(live))
				}
				m.requireOneKey("us-south")
				m.requireNoWAL()
				if after := m.readToken("us-south")["token_id"]; after == before {
					t.Fatal("readers still share a token of the old key")
				}
				config := m.must(logical.ReadOperation, "config/us-south", nil).Data
				for _, field := range []string{"api_key_id", "last_rotated"} {
					if config[field] != answered[field] || config[field] == nil {
						t.Errorf("%s is %v in the config and was answered as %v", field, config[field], answered[field])
					}
				}
			})
		})
	}
}

func TestARotationIsRefusedBeforeAnythingIsCreated(t *testing.T) {
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
			func(m *mount) { m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 500}) }, http.StatusBadGateway, `config "us-south" keeps its API key: the iam token service`,
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
				if own := m.ownLiveKeys(); len(own) != 0 || m.sim.Counts().KeysCreated != 0 {
					t.Error("a key was created")
				}
				m.requireNoWAL()
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

func TestAPlatformConfigCannotBeRotatedAndSaysWhy(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{
		"token_service": "platform", "token_url": m.url + "/api/token", "client_id": "client", "client_secret": testClientSecret,
	})
	status, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
	if status != http.StatusBadRequest || !strings.Contains(text, "cannot be rotated through an API") {
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
	if status != http.StatusBadRequest || !strings.Contains(text, "rotation_period is taken by the login and iam token services alone") {
		t.Fatalf("answered %d %s", status, text)
	}
}

func TestANewKeyThatIsRefusedForAMinuteIsWaitedFor(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetKeyDelay(time.Minute)
		m.requireLongRotation()
		if own := m.ownLiveKeys(); len(own) != 1 || own[0].KeyID != m.storedKeyID("us-south") {
			t.Error("the new key is not stored")
		}
		m.requireOneKey("us-south")
		m.requireNoWAL()
	})
}

// requireLongRotation asks for a rotation that its caller does not see the end of,
// and waits for that.
func (m *mount) requireLongRotation() {
	m.Helper()
	began := time.Now()
	status, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "goes on") {
		m.Errorf("answered %d %s", status, text)
	}
	if waited := time.Since(began); waited >= 55*time.Second {
		m.Errorf("the answer took %s, and Vault's client gives up after 60 s", waited)
	}
	time.Sleep(newKeyPatience)
}

func TestANewKeyThatIsRefusedForTooLongIsDeletedAndTheOldOneStays(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetKeyDelay(2 * newKeyPatience)
		m.requireLongRotation()
		why, _ := m.must(logical.ReadOperation, "status/us-south", nil).Data["last_rotation_error"].(string)
		if !strings.Contains(why, "the new key bought no token") || strings.Contains(why, "write the config again") {
			t.Errorf("status says %q", why)
		}
		m.sim.SetKeyDelay(0)
		m.requireOneKey("us-south")
		if len(m.ownLiveKeys()) != 0 {
			t.Error("the new key is left at IAM")
		}
		m.requireNoWAL()
	})
}

func TestTwoRotationsAtOnceMakeOneSuccessor(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetKeyDelay(10 * time.Second)
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

func TestARotationWhoseCallerGivesUpGoesOn(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetKeyDelay(20 * time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := m.backend.HandleRequest(ctx, &logical.Request{Operation: logical.UpdateOperation, Path: "config/us-south/rotate", Storage: m.storage})
		if err == nil || !strings.Contains(err.Error(), "goes on") {
			t.Fatalf("error is %v", err)
		}
		time.Sleep(newKeyPatience)
		if own := m.ownLiveKeys(); len(own) != 1 {
			t.Fatal("the rotation did not go on")
		}
		m.requireOneKey("us-south")
	})
}

func TestAWriteDuringARotationIsRefusedAndDoesNoHarm(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetKeyDelay(10 * time.Second)
		rotated := make(chan struct{})
		go func() {
			defer close(rotated)
			m.rotate("us-south")
		}()
		time.Sleep(time.Second)
		for _, data := range []map[string]any{{"max_retries": 1}, {"api_key": testKey}} {
			status, text := m.failure(logical.UpdateOperation, "config/us-south", data)
			if status != http.StatusConflict || !strings.Contains(text, "is being rotated") {
				t.Errorf("answered %d %s", status, text)
			}
		}
		<-rotated
		m.requireOneKey("us-south")
	})
}

func TestAConfigThatIsGivenTheKeyDuringItsRotationKeepsIt(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetKeyDelay(20 * time.Second)
		said := make(chan string)
		go func() {
			_, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
			said <- text
		}()
		time.Sleep(time.Second)
		m.writeConfig("eu-de", nil)
		if text := <-said; !strings.Contains(text, `"eu-de" holds the same API key`) {
			t.Errorf("the rotation answered %s", text)
		}
		m.requireOneKey("us-south")
		m.requireOneKey("eu-de")
		m.requireNoWAL()
	})
}

func TestADeletionDuringARotationDeletesTheNewKeyToo(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetKeyDelay(30 * time.Second)
		failed := make(chan string)
		go func() {
			_, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
			failed <- text
		}()
		time.Sleep(time.Second)
		if len(m.ownLiveKeys()) != 1 {
			t.Fatal("the rotation has made no key yet")
		}
		m.must(logical.DeleteOperation, "config/us-south", nil)
		if text := <-failed; !strings.Contains(text, "deleted during its rotation") {
			t.Errorf("the rotation answered %s", text)
		}
		if len(m.ownLiveKeys()) != 0 || len(m.liveKeys()) != 1 {
			t.Error("not just the key that somebody brought is left")
		}
		m.requireNoWAL()
	})
}

func TestAnUnloadDuringARotationLeavesTheOldKeyAndNothingElse(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetKeyDelay(30 * time.Second)
		failed := make(chan string)
		unloaded := m.backend
		go func() {
			_, err := unloaded.HandleRequest(context.Background(), &logical.Request{Operation: logical.UpdateOperation, Path: "config/us-south/rotate", Storage: m.storage})
			failed <- fmt.Sprint(err)
		}()
		time.Sleep(time.Second)
		if len(m.ownLiveKeys()) != 1 {
			t.Fatal("the rotation has made no key yet")
		}
		m.restart()
		if text := <-failed; !strings.Contains(text, "unloaded") {
			t.Errorf("the rotation answered %s", text)
		}
		m.requireOneKey("us-south")
		if len(m.ownLiveKeys()) != 0 {
			t.Error("the new key is left at IAM")
		}
		m.requireNoWAL()
	})
}

func TestAKeyThatRotationMadeIsDeletedWithItsConfigAndABroughtOneIsNot(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.writeConfig("brought", map[string]any{"api_key": m.newKey()})
		m.rotate("us-south")
		for _, name := range []string{"us-south", "brought"} {
			m.must(logical.DeleteOperation, "config/"+name, nil)
		}
		if live := m.liveKeys(); len(live) != 1 || live[0].CreatedByAPI {
			t.Fatalf("IAM holds %d keys", len(live))
		}
	})
}

func TestADeletionFailsWhileIAMCannotBeAskedToDeleteTheKey(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.rotate("us-south")
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503})
		status, text := m.failure(logical.DeleteOperation, "config/us-south", nil)
		if status != http.StatusBadGateway || !strings.Contains(text, "nothing was deleted") || !strings.Contains(text, "force=true") {
			t.Fatalf("answered %d %s", status, text)
		}
		m.sim.ClearFault()
		m.requireOneKey("us-south")
		m.must(logical.DeleteOperation, "config/us-south", nil)
		if len(m.ownLiveKeys()) != 0 {
			t.Fatal("the key is left at IAM")
		}
	})
}

func TestAForcedDeletionNeedsNoIAMAndTellsWhatToDelete(t *testing.T) {
	rotationTest(t, func(m *mount) {
		id := m.rotate("us-south").Data["api_key_id"].(string)
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503})
		resp := m.must(logical.DeleteOperation, "config/us-south", map[string]any{"force": "true"})
		if len(resp.Warnings) == 0 || !strings.Contains(resp.Warnings[0], id+", which rotation had made, could not be deleted") {
			t.Fatalf("warnings are %q", resp.Warnings)
		}
		if m.storedKeyID("us-south") != "" {
			t.Fatal("the config is still there")
		}
	})
}

func TestAWriteAheadEntryThatIsBrokenStandsInNobodysWay(t *testing.T) {
	for name, broken := range map[string]string{
		"not JSON": "{", "without a key": `{"type":"api_key","data":{"config":"us-south"}}`, "of another shape": `{"type":"api_key","data":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: "wal/broken", Value: []byte(broken)}); err != nil {
					t.Fatal(err)
				}
				m.rotate("us-south")
				m.writeConfig("us-south", map[string]any{"api_key": m.newKey()})
				m.must(logical.DeleteOperation, "config/us-south", nil)
				if !strings.Contains(m.log.String(), "[ERROR] a write-ahead entry is passed over") {
					t.Error("the log does not tell")
				}
			})
		})
	}
}

func TestADeletionOfAConfigWhoseKeyIAMRefusesTellsWhatToDelete(t *testing.T) {
	rotationTest(t, func(m *mount) {
		id := m.rotate("us-south").Data["api_key_id"].(string)
		stored, err := loadConfig(context.Background(), m.storage, "us-south")
		if err != nil {
			t.Fatal(err)
		}
		m.sim.DisableKey(stored.APIKey)
		resp := m.must(logical.DeleteOperation, "config/us-south", nil)
		if len(resp.Warnings) == 0 || !strings.Contains(resp.Warnings[0], id) || strings.Contains(resp.Warnings[0], "write the config again") {
			t.Fatalf("warnings are %q", resp.Warnings)
		}
	})
}

func TestAKeyThatRotationMadeIsDeletedWithItsConfigThoughTheOneBeforeIsLocked(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "delete", Kind: apicsim.KindStatus, Status: 503})
		m.rotate("us-south")
		m.sim.ClearKeyFaults()
		m.sim.LockKey(testKey)
		resp := m.must(logical.DeleteOperation, "config/us-south", nil)
		live := m.liveKeys()
		if len(live) != 1 || live[0].CreatedByAPI {
			t.Fatalf("IAM holds %d keys", len(live))
		}
		if len(resp.Warnings) == 0 || !strings.Contains(resp.Warnings[0], "key "+live[0].ID+":") {
			t.Errorf("warnings are %q", resp.Warnings)
		}
	})
}

func TestAKeyThatRotationMadeIsDeletedWhenAnotherOneIsWritten(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.rotate("us-south")
		m.writeConfig("us-south", map[string]any{"api_key": m.newKey()})
		m.requireOneKey("us-south")
		m.requireNoWAL()
		config := m.must(logical.ReadOperation, "config/us-south", nil).Data
		if config["api_key_id"] != nil || config["last_rotated"] != nil {
			t.Error("the config still tells of the rotation of another key")
		}
	})
}

func TestAKeyThatCannotBeDeletedWhenAnotherOneIsWrittenIsDeletedLater(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.rotate("us-south")
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "delete", Kind: apicsim.KindStatus, Status: 503})
		resp := m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": m.newKey()}))
		if resp == nil || len(resp.Warnings) == 0 {
			t.Fatal("the write does not warn")
		}
		m.sim.ClearKeyFaults()
		time.Sleep(walMinAge + time.Second)
		m.tick()
		m.requireOneKey("us-south")
		m.requireNoWAL()
	})
}

func TestTheOldKeyIsRefusedWhenItIsWrittenBackWhileItsDeletionIsLeft(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "delete", Kind: apicsim.KindStatus, Status: 503})
		m.rotate("us-south")
		m.sim.ClearKeyFaults()
		status, text := m.failure(logical.UpdateOperation, "config/us-south", m.configData(nil))
		if status != http.StatusBadRequest || !strings.Contains(text, "refused the API key") {
			t.Errorf("answered %d %s", status, text)
		}
		m.requireOneKey("us-south")
		m.requireNoWAL()
	})
}

// TestARotationWhoseKeyMayYetAppearDoesNotHideAnotherThatLeftTheOldKey runs some
// times, for the write-ahead entries are listed by chance.
func TestARotationWhoseKeyMayYetAppearDoesNotHideAnotherThatLeftTheOldKey(t *testing.T) {
	for range 8 {
		rotationTest(t, func(m *mount) {
			m.rotate("us-south")
			m.sim.InjectKeyFault(apicsim.KeyFault{Call: "create", Kind: apicsim.KindReset, Times: 1})
			m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
			m.sim.InjectKeyFault(apicsim.KeyFault{Call: "delete", Kind: apicsim.KindStatus, Status: 503})
			m.rotate("us-south")
			m.sim.ClearKeyFaults()
			m.rotate("us-south")
			m.settleEverything()
			m.requireOneKey("us-south")
			m.requireNoWAL()
		})
	}
}

func TestAConfigThatBecomesOneOfThePlatformCanBeWrittenAndDeletedThoughAKeyIsLeft(t *testing.T) {
	rotationTest(t, func(m *mount) {
		id := m.rotate("us-south").Data["api_key_id"].(string)
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "delete", Kind: apicsim.KindStatus, Status: 503})
		platform := map[string]any{
			"api_key": m.newKey(), "token_service": "platform", "token_url": m.url + "/api/token", "api_url": m.url,
			"client_id": "client", "client_secret": testClientSecret, "verify": false,
		}
		resp := m.must(logical.UpdateOperation, "config/us-south", platform)
		if resp == nil || len(resp.Warnings) == 0 || !strings.Contains(resp.Warnings[0], id) {
			t.Fatal("the write does not warn of the key that is left")
		}
		m.settleEverything()
		platform["api_key"] = m.newKey()
		m.must(logical.UpdateOperation, "config/us-south", platform)
		resp = m.must(logical.DeleteOperation, "config/us-south", nil)
		if len(resp.Warnings) == 0 || !strings.Contains(resp.Warnings[0], "could not be deleted at IBM") {
			t.Errorf("warnings are %q", resp.Warnings)
		}
		time.Sleep(walMinAge)
		m.settleEverything()
		m.requireNoWAL()
		if !strings.Contains(m.log.String(), "delete it there: config=us-south key="+id) {
			t.Error("the log does not say which key is left")
		}
	})
}

// TestNoKeyIsAnywhereButInItsSealedEntry looks for the keys that somebody brought
// and those that rotations made, in what is stored, logged, sent and answered.
func TestNoKeyIsAnywhereButInItsSealedEntry(t *testing.T) {
	rotationTest(t, func(m *mount) {
		var keys, elsewhere []string
		m.storage.watch = func(entry *logical.StorageEntry) {
			if !strings.HasPrefix(entry.Key, "config/") {
				elsewhere = append(elsewhere, entry.Key+string(entry.Value))
				return
			}
			var stored config
			if err := entry.DecodeJSON(&stored); err != nil {
				t.Error(err)
			}
			keys = append(keys, stored.APIKey)
		}
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
		elsewhere = append(elsewhere, fmt.Sprint(m.rotate("us-south").Data))
		m.ticks(2 * time.Hour)
		for _, call := range []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallDelete, apicsim.CallDetails} {
			for _, kind := range []apicsim.FaultKind{apicsim.KindStatus, apicsim.KindErrorBody, apicsim.KindNotJSON, apicsim.KindReset} {
				m.sim.InjectKeyFault(apicsim.KeyFault{Call: call, After: true, Kind: kind})
				resp, err := m.do(logical.UpdateOperation, "config/us-south/rotate", nil)
				elsewhere = append(elsewhere, fmt.Sprint(resp, err))
				m.sim.ClearKeyFaults()
				m.settleEverything()
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
		if keys = slices.Compact(keys); len(keys) < 5 || len(elsewhere) < 20 {
			t.Fatalf("there were only %d keys, and %d texts to search", len(keys), len(elsewhere))
		}
		for _, key := range keys {
			if slices.ContainsFunc(elsewhere, func(text string) bool { return strings.Contains(text, key) }) {
				t.Fatal("a key is outside of its entry")
			}
		}
	})
}

// TestWhateverStorageCallFailsARotationLeavesOneKey fails one storage call after
// the other, before and after its effect.
func TestWhateverStorageCallFailsARotationLeavesOneKey(t *testing.T) {
	for _, late := range []bool{false, true} {
		for n := int64(1); ; n++ {
			passed := false
			t.Run(fmt.Sprintf("call %d, late %v", n, late), func(t *testing.T) {
				rotationTest(t, func(m *mount) {
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
					m.settleEverything()
					m.requireOneKey("us-south")
					m.requireNoWAL()
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

// TestACreationThatBeginsLateAndWhoseAnswerIsLostIsNotForgotten has an IAM whose
// lists lag behind what was created.
func TestACreationThatBeginsLateAndWhoseAnswerIsLostIsNotForgotten(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"request_timeout": "60s", "max_retries": 10})
		m.sim.SetListDelay(20 * time.Second)
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "create", Kind: apicsim.KindStatus, Status: 429, Latency: 25 * time.Second, Times: 4})
		go func() {
			time.Sleep(101 * time.Second)
			m.sim.InjectKeyFault(apicsim.KeyFault{Call: "create", Kind: apicsim.KindReset, After: true, Times: 1})
		}()
		m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
		time.Sleep(2 * time.Minute)
		m.sim.ClearKeyFaults()
		m.settleEverything()
		m.requireOneKey("us-south")
		m.requireNoWAL()
	})
}

func TestAnAnnouncementFromTheFutureDoesNotKeepWritesOutForEver(t *testing.T) {
	rotationTest(t, func(m *mount) {
		w := &keyWAL{Config: "us-south", IAMID: m.sim.Keys()[0].IAMID, KeyName: "never-made", Since: time.Now().Add(1000 * time.Hour)}
		if _, err := putWAL(context.Background(), m.storage, w); err != nil {
			t.Fatal(err)
		}
		m.writeConfig("us-south", map[string]any{"api_key": m.newKey()})
		m.requireNoWAL()
	})
}

func TestAnUnloadEndsTheCleanUpThatAnInitializationBegan(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: "delete", Kind: apicsim.KindHang})
		m.rotate("us-south")
		m.restart()
		m.initializeBackend()
		synctest.Wait()
		calls := m.storage.calls.Load()
		m.backend.Cleanup(context.Background())
		synctest.Wait()
		m.sim.ClearKeyFaults()
		synctest.Wait()
		if m.storage.calls.Load() != calls {
			t.Error("an unloaded mount still cleans up")
		}
	})
}

// lateStorage keeps writes of configs in a log for later, and fails them, as a
// leader does that is being deposed.
type lateStorage struct {
	logical.Storage
	deposed bool
	log     []*logical.StorageEntry
}

func (s *lateStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if s.deposed && strings.HasPrefix(entry.Key, configStoragePrefix) {
		s.log = append(s.log, entry)
		return errStorage
	}
	return s.Storage.Put(ctx, entry)
}

func TestASuccessorThatTheNextLeaderFindsStoredIsNotDeletedByTheDeposedOne(t *testing.T) {
	rotationTest(t, func(m *mount) {
		late := &lateStorage{Storage: m.storage.Storage, deposed: true}
		m.storage.Storage = late
		m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
		if err := late.Storage.Put(context.Background(), late.log[0]); err != nil {
			t.Fatal(err)
		}
		late.deposed = false
		m.restart()
		m.initializeBackend()
		m.settleEverything()
		m.requireOneKey("us-south")
		m.requireNoWAL()
	})
}

// settleEverything lets the time pass that the clean-up may take.
func (m *mount) settleEverything() {
	m.Helper()
	for range 12 {
		time.Sleep(time.Minute)
		m.tick()
	}
}

// newKey makes another key of the same identity that somebody may bring.
func (m *mount) newKey() string {
	key := fmt.Sprintf("%s-%d", testKey, len(m.sim.Keys()))
	m.sim.AddKey(key)
	return key
}
