// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// TestConfigDelete_saysWhatIsLeftWhenIAMHangs has nobody know, when the time for it is up,
// what has become of the key.
func TestConfigDelete_saysWhatIsLeftWhenIAMHangs(t *testing.T) {
	rotationTest(t, func(m *mount) {
		id := m.rotate("us-south").Data["api_key_id"].(string)
		synctest.Wait()
		time.Sleep(3 * time.Minute)
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallDelete, Kind: apicsim.KindHang})
		began := time.Now()
		warning := strings.Join(m.must(logical.DeleteOperation, "config/us-south", nil).Warnings, " ")
		if took := time.Since(began); took > burialTime {
			t.Errorf("the deletion took %s", took)
		}
		if !strings.Contains(warning, "Still to be deleted at IBM") || !strings.Contains(warning, id) {
			t.Errorf("the warning is %q", warning)
		}
		m.sim.ClearKeyFaults()
		m.waitForCleanup()
		if left := m.managedLiveKeys(); len(left) != 0 {
			t.Errorf("%d keys are left at IAM", len(left))
		}
		m.requireNothingPending()
	})
}

// TestConfigDelete_thatNeverHappenedKeepsTheConfig has the deletion fail for good,
// after its tombstone was stored.
func TestConfigDelete_thatNeverHappenedKeepsTheConfig(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.rotate("us-south")
		synctest.Wait()
		time.Sleep(3 * time.Minute)
		m.storage.failDeletions.Store(true)
		m.failure(logical.DeleteOperation, "config/us-south", nil)
		m.storage.failDeletions.Store(false)
		if len(m.list(tombstoneStoragePrefix)) == 0 {
			t.Fatal("there is no tombstone")
		}
		m.waitForCleanup()
		m.requireOneKey("us-south")
		m.requireNothingPending()
		if len(m.list(tombstoneStoragePrefix)) != 0 {
			t.Error("the tombstone is left")
		}
	})
}

// TestConfigDelete_leavesNoStatusToTheNext creates a config again of which a key could not
// be deleted. That is the business of what the deletion has left.
func TestConfigDelete_leavesNoStatusToTheNext(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallDelete, Kind: apicsim.KindStatus, Status: 503})
		m.rotate("us-south")
		m.ticks(5 * time.Minute)
		if why := m.must(logical.ReadOperation, "status/us-south", nil).Data["cleanup_errors"]; why == nil {
			t.Fatal("the status does not say that a key cannot be deleted")
		}
		m.must(logical.DeleteOperation, "config/us-south", nil)
		m.writeConfig("us-south", map[string]any{"api_key": m.newKey()})
		if why := m.must(logical.ReadOperation, "status/us-south", nil).Data["cleanup_errors"]; why != nil {
			t.Errorf("the status of a new config says %v", why)
		}
	})
}

// TestConfigDelete_ofWhatCannotBeReadTellsOfTheKey deletes an entry that is no config.
func TestConfigDelete_ofWhatCannotBeReadTellsOfTheKey(t *testing.T) {
	rotationTest(t, func(m *mount) {
		if err := m.storage.Storage.Put(m.Context(), &logical.StorageEntry{Key: "config/broken", Value: []byte("{")}); err != nil {
			t.Fatal(err)
		}
		resp := m.must(logical.DeleteOperation, "config/broken", nil)
		if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "could not be read") {
			t.Errorf("warnings are %q", resp.Warnings)
		}
		if left := m.list(configStoragePrefix); len(left) != 1 {
			t.Errorf("configs are %q", left)
		}
	})
}

const (
	secondIAM = "http://127.0.0.2"
	thirdIAM  = "http://127.0.0.3"
)

// TestRetiredKey_isDeletedWhereItWasMade has a write bring another key, of another IAM, while
// the replaced one is in its grace period.
func TestRetiredKey_isDeletedWhereItWasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := newStrangeSim(t)
		asked := 0
		m := newHostsMount(t, map[string]http.Handler{"127.0.0.2": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "apikeys") {
				asked++
			}
			second.ServeHTTP(w, r)
		})})
		m.writeConfig("us-south", map[string]any{"rotation_grace_period": "1h"})
		m.must(logical.UpdateOperation, "config/us-south/rotate", nil)
		synctest.Wait() // A write would meet what follows a rotation in the background.
		second.AddKey("another-key")
		m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{
			"api_key": "another-key", "iam_url": secondIAM, "token_url": secondIAM + "/apikey", "api_url": secondIAM,
		}))
		m.ticks(30 * time.Minute)
		if live := m.liveKeys(); len(live) != 2 {
			t.Errorf("in the grace period the first IAM holds %d keys", len(live))
		}
		m.ticks(2 * time.Hour)
		if live := m.liveKeys(); len(live) != 0 {
			t.Errorf("the first IAM holds %d keys", len(live))
		}
		if asked != 0 {
			t.Errorf("the second IAM was asked %d times for keys of the first", asked)
		}
		m.requireNothingPending()
		m.must(logical.UpdateOperation, "token/us-south", nil)
	})
}

// TestRetiredKey_movesWithItsEndpoints has the IAM be found at another address, and at the
// old one no more.
func TestRetiredKey_movesWithItsEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moved := false
		byHost := map[string]http.Handler{}
		m := newHostsMount(t, byHost)
		byHost["127.0.0.1"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if moved {
				http.Error(w, "gone", http.StatusServiceUnavailable)
				return
			}
			m.sim.ServeHTTP(w, r)
		})
		m.writeConfig("us-south", map[string]any{"rotation_grace_period": "1h"})
		m.must(logical.UpdateOperation, "config/us-south/rotate", nil)
		moved = true
		m.must(logical.UpdateOperation, "endpoints/us-south", map[string]any{
			"iam_url": thirdIAM, "token_url": thirdIAM + "/apikey", "api_url": thirdIAM,
		})
		m.ticks(2 * time.Hour)
		m.requireOneKey("us-south")
		if live := m.liveKeys(); len(live) != 1 {
			t.Errorf("IAM holds %d keys", len(live))
		}
		m.requireNothingPending()
	})
}

// masquerade is an IAM that says of one key what it is told to.
type masquerade struct {
	*apicsim.Sim
	// says replaces, in its responses, what is true of its key.
	says func() *strings.Replacer
	// unsays does the reverse to the paths of requests.
	unsays func() *strings.Replacer
	// received are the bodies of the requests.
	received *strings.Builder
}

func (m masquerade) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.URL.Path = m.unsays().Replace(r.URL.Path)
	sent, _ := io.ReadAll(r.Body)
	m.received.WriteString(r.URL.RawQuery + string(sent) + "\n")
	r.Body = io.NopCloser(bytes.NewReader(sent))
	captured := &capture{ResponseWriter: w, status: http.StatusOK}
	m.Sim.ServeHTTP(captured, r)
	body := m.says().Replace(captured.body.String())
	w.Header().Del("Content-Length")
	w.WriteHeader(captured.status)
	_, _ = fmt.Fprint(w, body)
}

// capture keeps a response back.
type capture struct {
	http.ResponseWriter
	status int
	body   strings.Builder
}

func (c *capture) WriteHeader(status int)      { c.status = status }
func (c *capture) Write(b []byte) (int, error) { return c.body.Write(b) }

// TestRotation_confusedDeputy has somebody who may write a config name another config's key
// through an IAM of their own, as the key that is to be deleted, and leave the config
// to its owner, whose key has the right to delete that.
func TestRotation_confusedDeputy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := newStrangeSim(t)
		theirs.AddKey("attackers-key")
		byHost := map[string]http.Handler{}
		m := newHostsMount(t, byHost)
		m.writeConfig("victim", nil)
		m.rotate("victim")
		m.waitForCleanup()
		victim := m.managedLiveKeys()[0]
		own := theirs.Keys()[1]
		var received strings.Builder
		byHost["127.0.0.2"] = masquerade{
			Sim: theirs, received: &received,
			says: func() *strings.Replacer {
				return strings.NewReplacer(own.ID, victim.ID, `"name":"`+own.Name+`"`, `"name":"`+victim.Name+`"`, own.IAMID, victim.IAMID, own.AccountID, victim.AccountID)
			},
			unsays: func() *strings.Replacer { return strings.NewReplacer(victim.ID, own.ID) },
		}
		at := map[string]any{"api_key": "attackers-key", "iam_url": secondIAM, "token_url": secondIAM + "/apikey", "api_url": secondIAM}
		m.writeConfig("shared", at)
		m.must(logical.UpdateOperation, "config/shared/rotate", map[string]any{"grace_period": "30m"})
		synctest.Wait() // A write would meet what follows a rotation in the background.
		retired := m.storedConfigOf("shared").Keys.Retired
		if len(retired) != 1 || retired[0].ID != victim.ID || retired[0].Binding.Identity != victim.IAMID || retired[0].Name != victim.Name {
			t.Fatalf("the attack does not get as far as that: %+v", retired)
		}
		owners := m.newKey()
		m.writeConfig("shared", map[string]any{"api_key": owners, "iam_url": m.url})
		m.rotate("shared")
		m.ticks(48 * time.Hour)
		for _, k := range m.sim.Keys() {
			if k.ID == victim.ID && !k.Exists() {
				t.Error("the victim's key was deleted")
			}
		}
		m.must(logical.UpdateOperation, "token/victim", nil)
		m.must(logical.UpdateOperation, "token/shared", nil)
		for _, name := range []string{"victim", "shared"} {
			if strings.Contains(received.String(), m.storedConfigOf(name).APIKey) || strings.Contains(received.String(), owners) {
				t.Errorf("the attacker's IAM has been sent a key of %s", name)
			}
		}
		if !strings.Contains(received.String(), "attackers-key") {
			t.Error("the attacker's IAM was not called")
		}
	})
}
