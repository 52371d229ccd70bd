// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// entityTest runs in a bubble, on a mount with a config, us-south, that keeps a token for
// each entity and has none yet. calls are the requests that reach the services.
func entityTest(t *testing.T, test func(m *mount, calls *callGauge)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		calls := &callGauge{handler: sim}
		m := newPipedMount(t, sim, calls)
		m.defaults = map[string]any{"cache": "entity", "iam_url": m.url}
		m.begin()
		m.writeConfig("us-south", map[string]any{"verify": false})
		test(m, calls)
	})
}

// tokenOfEntity is the id of the token that a reader of us-south gets.
func (m *mount) tokenOfEntity(entity string) string {
	m.Helper()
	return m.mustAs(entity, logical.ReadOperation, "token/us-south", nil).Data["token_id"].(string)
}

// readInBackground sends the id of the token that a reader of us-south gets.
func (m *mount) readInBackground(entity string) <-chan string {
	got := make(chan string, 1)
	go func() {
		resp, err := m.backend.HandleRequest(context.Background(), &logical.Request{
			Operation: logical.ReadOperation, Path: "token/us-south", Storage: m.storage, EntityID: entity,
		})
		if err != nil || resp.IsError() {
			m.Errorf("the read of %s failed: %v %v", entity, err, resp)
			got <- ""
			return
		}
		got <- resp.Data["token_id"].(string)
	}()
	return got
}

// keyOf is the id of the key that a token was issued for.
func (m *mount) keyOf(tokenID string) string {
	m.Helper()
	for _, issued := range m.sim.Issued() {
		if issued.ID == tokenID {
			return issued.KeyID
		}
	}
	m.Fatalf("no token %s was issued", tokenID)
	return ""
}

func TestEntityTokens_oneForEachAndOneForThoseWithout(t *testing.T) {
	entityTest(t, func(m *mount, calls *callGauge) {
		seen := make(map[string]bool)
		for _, entity := range []string{"alice", "bob", ""} {
			id := m.tokenOfEntity(entity)
			if seen[id] {
				t.Errorf("the token of %q is another's too", entity)
			}
			seen[id] = true
			if again := m.tokenOfEntity(entity); again != id {
				t.Errorf("the token of %q became another one", entity)
			}
		}
		before := calls.total()
		if own := m.mustAs("alice", logical.UpdateOperation, "token/us-south", nil).Data["token_id"].(string); seen[own] {
			t.Error("a dedicated token is shared")
		}
		if got := calls.total() - before; got != 1 {
			t.Errorf("a dedicated token took %d exchanges", got)
		}
	})
}

func TestEntityTokens_readersOfOneShareAnExchange(t *testing.T) {
	entityTest(t, func(m *mount, calls *callGauge) {
		m.sim.Inject(apicsim.Fault{Latency: time.Second})
		var reads []<-chan string
		for n := range 40 {
			reads = append(reads, m.readInBackground([]string{"alice", "bob"}[n%2]))
		}
		var got [2][]string
		for n, read := range reads {
			got[n%2] = append(got[n%2], <-read)
		}
		for n := range got {
			slices.Sort(got[n])
			got[n] = slices.Compact(got[n])
		}
		if len(got[0]) != 1 || len(got[1]) != 1 || got[0][0] == got[1][0] {
			t.Errorf("one entity got %v, the other %v", got[0], got[1])
		}
		if calls.total() != 2 {
			t.Errorf("%d exchanges", calls.total())
		}
	})
}

// TestEntityTokens_theLeastRecentlyReadGoes also deletes the config, which releases what is
// held for those that were displaced, and for those that were not.
func TestEntityTokens_theLeastRecentlyReadGoes(t *testing.T) {
	entityTest(t, func(m *mount, calls *callGauge) {
		first := m.tokenOfEntity("entity-0")
		second := m.tokenOfEntity("entity-1")
		for n := 2; n < maxEntities; n++ {
			m.tokenOfEntity(fmt.Sprint("entity-", n))
		}
		if m.tokenOfEntity("entity-0") != first {
			t.Fatal("an entity has lost its token while there was room")
		}
		m.tokenOfEntity("one-more")
		if got := m.readStatus("us-south")["entities"]; got != int64(maxEntities) {
			t.Errorf("the status counts %v entities", got)
		}
		if m.tokenOfEntity("entity-0") != first {
			t.Error("an entity that read since has lost its token")
		}
		if m.tokenOfEntity("entity-1") == second {
			t.Error("the entity that did not read for longest has kept its token")
		}
		if got := calls.total(); got != maxEntities+2 {
			t.Errorf("%d exchanges", got)
		}
		m.must(logical.DeleteOperation, "config/us-south", nil)
		limits := m.backend.limits
		if len(limits.backoffs.held) != 0 || len(limits.rateLimits.held) != 0 {
			t.Errorf("%d backoffs and %d rate limits are held", len(limits.backoffs.held), len(limits.rateLimits.held))
		}
	})
}

func TestEntityTokens_minTTLIsThatOfTheEntitysToken(t *testing.T) {
	entityTest(t, func(m *mount, _ *callGauge) {
		alice := m.tokenOfEntity("alice")
		time.Sleep(20 * time.Minute)
		bob := m.tokenOfEntity("bob")
		read := func(entity string) any {
			return m.mustAs(entity, logical.ReadOperation, "token/us-south", map[string]any{"min_ttl": "50m"}).Data["token_id"]
		}
		if read("bob") != bob {
			t.Error("a token that lives for long enough was replaced")
		}
		if read("alice") == alice {
			t.Error("a token that does not live for long enough was not replaced")
		}
	})
}

// TestEntityTokens_refusedKeyIsNotSentForEach has a hundred entities come one after the
// other.
func TestEntityTokens_refusedKeyIsNotSentForEach(t *testing.T) {
	entityTest(t, func(m *mount, calls *callGauge) {
		m.sim.RevokeKey(testKey)
		for n := range 100 {
			resp, err := m.doAs(fmt.Sprint("entity-", n), logical.ReadOperation, "token/us-south", nil)
			if err == nil && !resp.IsError() {
				t.Fatal("a revoked key gave a token")
			}
		}
		if calls.total() != 1 {
			t.Errorf("the key was sent %d times", calls.total())
		}
		status := m.readStatus("us-south")
		if status["consecutive_failures"] != int64(1) || status["last_error"] == nil {
			t.Errorf("the status is %v", status)
		}
	})
}

func TestEntityTokens_exchangesAtATimeAreBounded(t *testing.T) {
	entityTest(t, func(m *mount, calls *callGauge) {
		m.sim.Inject(apicsim.Fault{Latency: time.Second})
		var reads []<-chan string
		for n := range 50 {
			reads = append(reads, m.readInBackground(fmt.Sprint("entity-", n)))
		}
		for _, read := range reads {
			<-read
		}
		if got := calls.most(); got != tokensource.MaxExchanges {
			t.Errorf("%d exchanges at a time", got)
		}
	})
}

func TestEntityTokens_verificationIsForTheWriter(t *testing.T) {
	entityTest(t, func(m *mount, calls *callGauge) {
		m.mustAs("alice", logical.UpdateOperation, "config/us-south", m.configData(nil))
		verified := m.sim.Issued()[0].ID
		if m.tokenOfEntity("alice") != verified || calls.total() != 1 {
			t.Errorf("the writer got another token, after %d exchanges", calls.total())
		}
		if m.tokenOfEntity("bob") == verified || m.tokenOfEntity("") == verified {
			t.Error("somebody else got the token of the writer")
		}
		m.must(logical.UpdateOperation, "config/us-south", m.configData(nil)) // With a root token, say.
		before := calls.total()
		m.tokenOfEntity("")
		if calls.total() != before {
			t.Error("a writer without an entity got another token")
		}
	})
}

// TestEntityTokens_writesKeepOrDropThem as they do with the token that all share.
func TestEntityTokens_writesKeepOrDropThem(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		data  map[string]any
		keeps bool
	}{
		"a setting":                 {"config/us-south", map[string]any{"max_retries": 1}, true},
		"a setting, and the key":    {"config/us-south", map[string]any{"max_retries": 1, "api_key": testKey, "verify": false}, false},
		"one token for all":         {"config/us-south", map[string]any{"cache": true}, false},
		"another API address":       {"endpoints/us-south", map[string]any{"api_url": "https://a.example"}, true},
		"another address, verified": {"endpoints/us-south", map[string]any{"token_url": "http://127.0.0.2/apikey"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			entityTest(t, func(m *mount, _ *callGauge) {
				alice, bob := m.tokenOfEntity("alice"), m.tokenOfEntity("bob")
				m.mustAs("carol", logical.UpdateOperation, c.path, c.data)
				if kept := m.tokenOfEntity("alice") == alice; kept != c.keeps {
					t.Errorf("one entity's token was kept: %t", kept)
				}
				if kept := m.tokenOfEntity("bob") == bob; kept != c.keeps {
					t.Errorf("another entity's token was kept: %t", kept)
				}
			})
		})
	}
}

// TestEntityTokens_becomeOneForAll and back. What all share goes to nobody's entity.
func TestEntityTokens_becomeOneForAll(t *testing.T) {
	entityTest(t, func(m *mount, _ *callGauge) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"cache": true})
		shared := m.tokenOfEntity("alice")
		if m.tokenOfEntity("bob") != shared || m.tokenOfEntity("") != shared {
			t.Error("not all share a token")
		}
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"cache": "entity"})
		if m.tokenOfEntity("alice") == shared || m.tokenOfEntity("bob") == shared {
			t.Error("an entity got the token that all had shared")
		}
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"cache": false})
		if first := m.tokenOfEntity("alice"); m.tokenOfEntity("alice") == first {
			t.Error("two reads got one token")
		}
	})
}

func TestEntityTokens_revocation(t *testing.T) {
	entityTest(t, func(m *mount, _ *callGauge) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"lease": true})
		lease := m.mustAs("alice", logical.ReadOperation, "token/us-south", nil)
		alice, bob, nobody := m.tokenOfEntity("alice"), m.tokenOfEntity("bob"), m.tokenOfEntity("")
		m.revoke(lease.Secret)
		next := m.tokenOfEntity("alice")
		if next == alice {
			t.Error("the revoked token is shared on")
		}
		m.revoke(lease.Secret)
		if m.tokenOfEntity("alice") != next || m.tokenOfEntity("bob") != bob || m.tokenOfEntity("") != nobody {
			t.Error("a token that was not revoked is not shared any more")
		}
	})
}

// TestEntityTokens_revokedDuringAWriteWithoutAKey has the revocation arrive before the write
// stores its config.
func TestEntityTokens_revokedDuringAWriteWithoutAKey(t *testing.T) {
	entityTest(t, func(m *mount, _ *callGauge) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"lease": true})
		lease := m.mustAs("alice", logical.ReadOperation, "token/us-south", nil)
		bob := m.tokenOfEntity("bob")
		present := m.inUse()
		fresh, err := m.backend.configs.wire("us-south", present.config.withKeys(present.config.Keys), nil)
		if err != nil {
			t.Fatal(err)
		}
		fresh.keepsTokens = true
		m.revoke(lease.Secret)
		if err := m.backend.configs.Update(context.Background(), "us-south", present.config, fresh, nil); err != nil {
			t.Fatal(err)
		}
		if m.tokenOfEntity("alice") == lease.Data["token_id"] {
			t.Error("the revoked token is shared again")
		}
		if m.tokenOfEntity("bob") != bob {
			t.Error("another entity has lost its token")
		}
	})
}

// TestEntityTokens_rotationLeavesNoneOfTheOldKey to any entity: those with a token, those
// who wait for one, and those without an entity.
func TestEntityTokens_rotationLeavesNoneOfTheOldKey(t *testing.T) {
	entityTest(t, func(m *mount, _ *callGauge) {
		entities := []string{"alice", "bob", ""}
		for _, entity := range entities {
			m.tokenOfEntity(entity)
		}
		m.sim.Inject(apicsim.Fault{Latency: 3 * time.Second, Times: 1}) // Dave's, who waits.
		waiting := m.readInBackground("dave")
		synctest.Wait()
		m.rotate("us-south")
		key := m.storedKeyID("us-south")
		if got := m.keyOf(<-waiting); got != key {
			t.Errorf("the reader who waited got a token of the key %s", got)
		}
		for _, entity := range append(entities, "dave") {
			if got := m.keyOf(m.tokenOfEntity(entity)); got != key {
				t.Errorf("%q got a token of the key %s", entity, got)
			}
		}
	})
}

func TestEntityTokens_status(t *testing.T) {
	entityTest(t, func(m *mount, _ *callGauge) {
		m.tokenOfEntity("")
		if got := m.readStatus("us-south")["entities"]; got != int64(0) {
			t.Errorf("%v entities have a token", got)
		}
		m.tokenOfEntity("alice")
		m.tokenOfEntity("bob")
		status := m.readStatus("us-south")
		if status["entities"] != int64(2) || status["last_success"] != time.Now().UTC().Format(time.RFC3339) {
			t.Errorf("the status is %v", status)
		}
		for _, field := range []string{"token_id", "expires_at", "ttl"} {
			if told, ok := status[field]; ok {
				t.Errorf("%s is %v", field, told)
			}
		}
		m.requireSample(`vault_apic_entity_tokens{config="us-south"}`, 2)
		m.requireSample(`vault_apic_reads_total{outcome="shared"}`, 3)
		m.requireSample(`vault_apic_token_expiry_timestamp_seconds{config="us-south"}`, float64(time.Now().Add(time.Hour).Unix()))
		time.Sleep(48 * time.Hour) // Nobody reads, and the tokens lapse.
		if got := m.readStatus("us-south")["entities"]; got != int64(0) {
			t.Errorf("%v entities have a token that lives", got)
		}
		m.requireSample(`vault_apic_entity_tokens{config="us-south"}`, 0)
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"cache": true})
		if _, ok := m.readStatus("us-south")["entities"]; ok || strings.Contains(m.exposition(), "vault_apic_entity_tokens{") {
			t.Error("entities are told of a config whose readers share one token")
		}
	})
}

func TestEntityTokens_readerWaitsThroughTheUnmount(t *testing.T) {
	entityTest(t, func(m *mount, calls *callGauge) {
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindHang})
		failed := make(chan error, 1)
		go func() {
			_, err := m.backend.HandleRequest(context.Background(), &logical.Request{
				Operation: logical.ReadOperation, Path: "token/us-south", Storage: m.storage, EntityID: "alice",
			})
			failed <- err
		}()
		synctest.Wait()
		m.backend.Cleanup(context.Background())
		if err := <-failed; err == nil || ofCode(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "being unloaded") {
			t.Errorf("error is %v", err)
		}
		if calls.total() != 1 {
			t.Errorf("%d exchanges", calls.total())
		}
	})
}
