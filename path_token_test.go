// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestTokenRead_returnsTheTokenAndWhereToUseIt(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	data := m.readToken("us-south")
	issued := m.sim.Issued()
	if len(issued) != 1 || data["token_id"] != issued[0].ID {
		t.Fatalf("token_id is %v", data["token_id"])
	}
	if data["token_type"] != "Bearer" || data["region"] != "us-south" || data["api_url"] != m.server.URL() {
		t.Fatalf("answered type %v, region %v, api_url %v", data["token_type"], data["region"], data["api_url"])
	}
	expiresAt, err := time.Parse(time.RFC3339, data["expires_at"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if !expiresAt.Equal(issued[0].ExpiresAt.Truncate(time.Second)) {
		t.Fatalf("expires_at is %v, want %v", expiresAt, issued[0].ExpiresAt)
	}
}

// TestTokenRead_timesParseForRotationAwareReaders holds the rules by
// which readers recognise a secret that rotates without a lease.
//
// Vault Agent, in consul-template's leaseCheckWait: the answer has no lease id, a
// rotation_period of whatever value, and a ttl that is a JSON number and an
// integer; it sleeps ttl+1 seconds, and takes a ttl of 0 for a failure.
//
// Vault Secrets Operator with allowStaticCreds, in its
// vaultStaticCredsMetaDataFromData and isStaticCreds: last_vault_rotation is a
// string in RFC 3339, with or without a fraction, and differs from one token to
// the next in its seconds; rotation_period is a JSON number, an integer and at
// least 1; ttl is a JSON number and an integer.
func TestTokenRead_timesParseForRotationAwareReaders(t *testing.T) {
	for life, seconds := range map[time.Duration]int64{time.Hour: 2700, 20 * time.Second: 15, 4 * time.Second: 3} {
		t.Run(life.String(), func(t *testing.T) {
			m := newMount(t)
			m.sim.SetTokenTTL(life)
			m.writeConfig("us-south", nil)
			resp := m.must(logical.ReadOperation, "token/us-south", nil)
			if resp.Secret != nil {
				t.Fatal("the answer has a lease")
			}
			data := asClientsSeeIt(t, resp.Data)
			// The token's own times are whole seconds, so that it lives up to one less.
			for _, field := range []string{"ttl", "rotation_period"} {
				if got, err := data[field].(json.Number).Int64(); err != nil || got < 1 || got > seconds || got < seconds-2 {
					t.Errorf("%s is %v, want about %d", field, data[field], seconds)
				}
			}
			at, err := time.Parse(time.RFC3339Nano, data["last_vault_rotation"].(string))
			if err != nil {
				t.Fatal(err)
			}
			if age := time.Since(at); age < 0 || age > time.Minute {
				t.Errorf("last_vault_rotation is %s ago", age)
			}
		})
	}
}

// asClientsSeeIt is data after its way through JSON.
func asClientsSeeIt(t *testing.T, data map[string]any) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	var seen map[string]any
	if err := decoder.Decode(&seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

// TestToken_staleTTL holds a stale answer against what consumers of rotated credentials expect:
// a ttl above 2, or the Vault Secrets Operator waits for a new last_vault_rotation and fails, and
// not above rotation_period.
func TestToken_staleTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSimulation(t)
		sim.AddKey(testKey)
		m := newPipedMount(t, sim, sim)
		m.initializeBackend()
		m.writeConfig("us-south", map[string]any{"max_retries": 0})
		fresh := m.readToken("us-south")
		sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable})
		time.Sleep(time.Duration(fresh["ttl"].(int64)) * time.Second)
		resp := m.must(logical.ReadOperation, "token/us-south", nil)
		if len(resp.Warnings) != 1 || resp.Data["last_vault_rotation"] != fresh["last_vault_rotation"] {
			t.Fatalf("the answer is not stale: %v", resp.Warnings)
		}
		if ttl := resp.Data["ttl"].(int64); ttl <= 2 || ttl > resp.Data["rotation_period"].(int64) {
			t.Errorf("ttl is %d, rotation_period %v", ttl, resp.Data["rotation_period"])
		}
	})
}

// Readers share a token, and an update gets a dedicated one.
func TestTokenRead_isSharedAndAnUpdateIsDedicated(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	shared := m.readToken("us-south")["token_id"]
	own := m.must(logical.UpdateOperation, "token/us-south", nil).Data["token_id"]
	if own == shared {
		t.Error("the update answered the shared token")
	}
	if m.readToken("us-south")["token_id"] != shared {
		t.Error("the shared token changed")
	}
	if another := m.must(logical.UpdateOperation, "token/us-south", nil).Data["token_id"]; another == own {
		t.Error("two updates answered the same token")
	}
}

func TestTokenRead_withoutCacheIsDedicated(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"cache": false, "verify": false})
	if m.readToken("us-south")["token_id"] == m.readToken("us-south")["token_id"] {
		t.Fatal("two reads answered the same token")
	}
}

// Cold readers share one exchange and one storage read.
func TestTokenRead_coldReadersShareOneExchange(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.restart()
	storageCalls, exchanges := m.storage.calls.Load(), m.sim.Counts().Exchanges
	m.sim.Inject(apicsim.Fault{Latency: 50 * time.Millisecond})
	var readers sync.WaitGroup
	for range 100 {
		readers.Go(func() {
			if _, err := m.backend.HandleRequest(context.Background(), &logical.Request{
				Operation: logical.ReadOperation, Path: "token/us-south", Storage: m.storage,
			}); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
	if got := m.storage.calls.Load() - storageCalls; got != 1 {
		t.Errorf("%d storage calls", got)
	}
	if got := m.sim.Counts().Exchanges - exchanges; got != 1 {
		t.Errorf("%d exchanges", got)
	}
}

func TestTokenRead_ofAFreshTokenReadsNoStorage(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.readToken("us-south")
	before := m.storage.calls.Load()
	for range 100 {
		m.readToken("us-south")
	}
	if got := m.storage.calls.Load() - before; got != 0 {
		t.Fatalf("%d storage calls", got)
	}
}

func TestMinTTL_replacesATokenThatEndsSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		m := newPipedMount(t, sim, sim)
		sim.SetTokenTTL(10 * time.Second)
		m.writeConfig("us-south", nil)
		first := m.readToken("us-south")["token_id"]
		time.Sleep(3 * time.Second)
		if m.readToken("us-south")["token_id"] != first {
			t.Error("the token was replaced before it was due")
		}
		long := m.must(logical.ReadOperation, "token/us-south", map[string]any{"min_ttl": "8s"}).Data
		if long["token_id"] == first {
			t.Error("the token was not replaced when it had less than eight seconds left")
		}
	})
}

func TestMinTTL_tooLongNamesTheLongestPossible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		m.writeConfig("us-south", nil)
		m.writeConfig("eu-de", map[string]any{"cache": false})
		before := m.sim.Counts().Exchanges
		for _, c := range []struct {
			op             logical.Operation
			config, minTTL string
			longest        string
		}{
			{logical.ReadOperation, "us-south", "5h", "the longest is 54m0s"},
			{logical.ReadOperation, "us-south", "54m1s", "the longest is 54m0s"},
			{logical.ReadOperation, "us-south", "54m", ""},
			{logical.UpdateOperation, "us-south", "5h", "the longest is 1h0m0s"},
			{logical.UpdateOperation, "us-south", "60m", ""},
			{logical.ReadOperation, "eu-de", "5h", "the longest is 1h0m0s"},
			{logical.ReadOperation, "eu-de", "60m", ""},
		} {
			data := map[string]any{"min_ttl": c.minTTL}
			if c.longest == "" {
				m.must(c.op, "token/"+c.config, data)
				continue
			}
			status, text := m.failure(c.op, "token/"+c.config, data)
			if status != 400 || !strings.HasPrefix(text, "min_ttl of "+c.minTTL) || !strings.Contains(text, c.longest) {
				t.Errorf("%s of %s with %s answered %d %s", c.op, c.config, c.minTTL, status, text)
			}
		}
		if got := m.sim.Counts().Exchanges - before; got != 2 {
			t.Errorf("%d exchanges for two dedicated tokens", got)
		}
	})
}

func TestMinTTL_thatIsNoDurationIsNotQuoted(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	status, text := m.failure(logical.ReadOperation, "token/us-south", map[string]any{"min_ttl": testKey})
	if status != 400 || !strings.HasPrefix(text, "min_ttl must be a duration") {
		t.Fatalf("answered %d %s", status, text)
	}
	requireNoKey(t, text)
}

func TestTokenRead_ofNoConfigSaysHowToMakeOne(t *testing.T) {
	m := newMount(t)
	for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		status, text := m.failure(op, "token/us-south", nil)
		if status != 400 || !strings.Contains(text, `no config "us-south"`) || !strings.Contains(text, "vault write <mount>/config/us-south api_key=@apikey.json") {
			t.Errorf("%s answered %d %s", op, status, text)
		}
	}
}

func TestTokenRead_statusOfEachServiceFailure(t *testing.T) {
	cases := []struct {
		name   string
		fault  apicsim.Fault
		status int
		says   string
	}{
		{"a refused key", apicsim.Fault{Kind: apicsim.KindStatus, Status: 401}, 400, "refused the API key (HTTP 401)"},
		{"a wrong address", apicsim.Fault{Kind: apicsim.KindStatus, Status: 404}, 400, "no such address (HTTP 404)"},
		{"a failing service", apicsim.Fault{Kind: apicsim.KindStatus, Status: 503}, 502, "failed with HTTP 503"},
		{"a busy service", apicsim.Fault{Kind: apicsim.KindStatus, Status: 429, RetryAfter: "7"}, 502, "called less often"},
		{"an invalid response", apicsim.Answering(""), 502, "not JSON"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newMount(t)
			m.writeConfig("us-south", map[string]any{"verify": false})
			m.sim.Inject(c.fault)
			status, text := m.failure(logical.ReadOperation, "token/us-south", nil)
			if status != c.status || !strings.Contains(text, c.says) {
				t.Fatalf("answered %d %s", status, text)
			}
			requireNoKey(t, text)
		})
	}
}

func TestLease_isNotRenewableAndEndsWithItsToken(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"lease": true})
	secret := m.must(logical.ReadOperation, "token/us-south", nil).Secret
	if secret == nil || secret.Renewable {
		t.Fatalf("lease is %v", secret)
	}
	left := time.Until(m.sim.Issued()[0].ExpiresAt)
	if secret.TTL > left+time.Second || secret.TTL < left-2*time.Second || secret.MaxTTL != secret.TTL {
		t.Fatalf("lease lives %v and at most %v, the token %v", secret.TTL, secret.MaxTTL, left)
	}
}

// The revocation of a lease drops its token, and needs neither the config nor the
// network.
func TestLease_revocationDropsTheToken(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"lease": true})
	first := m.must(logical.ReadOperation, "token/us-south", nil)
	m.revoke(first.Secret)
	second := m.must(logical.ReadOperation, "token/us-south", nil)
	if second.Data["token_id"] == first.Data["token_id"] {
		t.Error("the revoked token is still shared")
	}
	m.revoke(first.Secret)
	if m.readToken("us-south")["token_id"] != second.Data["token_id"] {
		t.Error("revoking an old lease dropped a newer token")
	}
	m.must(logical.DeleteOperation, "config/us-south", nil)
	m.server.Close()
	m.revoke(second.Secret)
}

func (m *mount) revoke(secret *logical.Secret) {
	m.Helper()
	if _, err := m.backend.HandleRequest(context.Background(), &logical.Request{
		Operation: logical.RevokeOperation, Path: "token/us-south", Secret: secret, Storage: m.storage,
	}); err != nil {
		m.Fatal(err)
	}
}

func TestLease_standbyForwardsBeforeAnyExchange(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"lease": true, "verify": false})
	view := *logical.TestSystemView()
	view.ReplicationStateVal = consts.ReplicationPerformanceStandby
	if err := m.backend.Setup(context.Background(), &logical.BackendConfig{System: view}); err != nil {
		t.Fatal(err)
	}
	_, err := m.do(logical.ReadOperation, "token/us-south", nil)
	if err != logical.ErrReadOnly {
		t.Fatalf("error is %v", err)
	}
	if got := m.sim.Counts().Exchanges; got != 0 {
		t.Fatalf("%d exchanges", got)
	}
}

// After the write of a new key no reader gets a token of the old one.
func TestConfigWrite_newKeyEndsTheOldToken(t *testing.T) {
	m := newMount(t)
	m.sim.AddKey("second-key")
	m.writeConfig("us-south", map[string]any{"verify": false})
	m.sim.Inject(apicsim.Fault{Latency: 200 * time.Millisecond})
	slow := make(chan string, 1)
	go func() {
		resp, err := m.backend.HandleRequest(context.Background(), &logical.Request{
			Operation: logical.ReadOperation, Path: "token/us-south", Storage: m.storage,
		})
		if err != nil {
			t.Error(err)
			slow <- ""
			return
		}
		slow <- resp.Data["token_id"].(string)
	}()
	m.waitForExchanges(1)
	m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": "second-key", "verify": false}))
	id := <-slow
	for _, issued := range m.sim.Issued() {
		if issued.ID == id && issued.KeyID != m.sim.KeyID("second-key") {
			t.Fatal("the reader that waited got a token of the old key")
		}
	}
	if m.readToken("us-south")["token_id"] != id {
		t.Fatal("the reader that waited did not get the new shared token")
	}
}

func (m *mount) waitForExchanges(n int) {
	m.Helper()
	deadline := time.After(10 * time.Second)
	for m.sim.Counts().Exchanges < n {
		select {
		case <-deadline:
			m.Fatal("the service was not called in time")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestUnmount_waitingReaderRevivesNoConfig(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"verify": false})
	m.sim.Inject(apicsim.Fault{Kind: apicsim.KindHang})
	failed := make(chan error, 1)
	go func() {
		_, err := m.backend.HandleRequest(context.Background(), &logical.Request{
			Operation: logical.ReadOperation, Path: "token/us-south", Storage: m.storage,
		})
		failed <- err
	}()
	m.waitForExchanges(1)
	m.backend.Cleanup(context.Background())
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "being unloaded") {
		t.Errorf("error is %v", err)
	}
	if m.backend.configs.inUse("us-south") != nil || m.sim.Counts().Exchanges != 1 {
		t.Error("the config was loaded again")
	}
}

// TestLease_revokedDuringAWriteWithoutAKey has the revocation arrive while the write
// stores its config.
func TestLease_revokedDuringAWriteWithoutAKey(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"lease": true})
	first := m.must(logical.ReadOperation, "token/us-south", nil)
	present := m.backend.configs.inUse("us-south")
	kept := present.source.Current()
	fresh, err := m.backend.configs.wire("us-south", present.config.withKeys(present.config.Keys), kept)
	if err != nil {
		t.Fatal(err)
	}
	m.revoke(first.Secret)
	if err := m.backend.configs.Update(context.Background(), "us-south", present.config, fresh, kept); err != nil {
		t.Fatal(err)
	}
	if m.readToken("us-south")["token_id"] == first.Data["token_id"] {
		t.Fatal("the revoked token is shared again")
	}
}
