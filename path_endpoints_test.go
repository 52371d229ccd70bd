// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// sameSimAt is another address of the mount's simulated services.
func (m *mount) sameSimAt() (url string) {
	m.Helper()
	server, err := apicsim.Start(m.sim)
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(server.Close)
	return server.URL()
}

func TestEndpoints_areReadAsTheyAreInForce(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"api_url": ""})
	want := map[string]any{
		"region": "us-south", "token_url": m.url + "/apikey", "api_url": "https://apimanager.us-south.apiconnect.cloud.ibm.com",
		"iam_url": "https://iam.cloud.ibm.com", "ca_cert": "",
	}
	got := m.must(logical.ReadOperation, "endpoints/us-south", nil).Data
	for field, value := range want {
		if got[field] != value {
			t.Errorf("%s is %v, want %v", field, got[field], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the response has %d fields", len(got))
	}
}

func TestEndpoints_ofNoConfigNameTheCommandThatMakesOne(t *testing.T) {
	m := newMount(t)
	for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		status, text := m.failure(op, "endpoints/us-south", map[string]any{"api_url": "https://a.example"})
		if status != http.StatusBadRequest || !strings.Contains(text, "vault write <mount>/config/us-south api_key=") {
			t.Errorf("%s responded %d %s", op, status, text)
		}
	}
	if status, text := m.failure(logical.UpdateOperation, "endpoints/a/b", nil); status != http.StatusBadRequest || !strings.HasPrefix(text, "name ") {
		t.Errorf("responded %d %s", status, text)
	}
}

func TestEndpoints_needSudo(t *testing.T) {
	if root := newBackend(BuildInfo{}).SpecialPaths().Root; !slices.Equal(root, []string{"endpoints/*"}) {
		t.Fatalf("root-protected are %q", root)
	}
}

func TestEndpoints_moveAKeyThatNobodyHas(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"request_timeout": "7s", "max_retries": 5, "iam_url": m.url})
	m.events.take()
	before := m.must(logical.ReadOperation, "config/us-south", nil).Data
	token := m.readToken("us-south")["token_id"]
	elsewhere := m.sameSimAt()
	m.must(logical.UpdateOperation, "endpoints/us-south", map[string]any{"token_url": elsewhere + "/apikey", "iam_url": elsewhere + "/"})

	after := m.must(logical.ReadOperation, "config/us-south", nil).Data
	for field, value := range before {
		switch field {
		case "token_url":
			value = elsewhere + "/apikey"
		case "iam_url":
			value = elsewhere
		case "updated_at":
			continue
		}
		if after[field] != value {
			t.Errorf("%s is %v, want %v", field, after[field], value)
		}
	}
	m.server.Close()
	exchanges := m.sim.Counts().Exchanges
	if m.readToken("us-south")["token_id"] == token || m.sim.Counts().Exchanges != exchanges {
		t.Error("readers do not share the token of the verification")
	}
	m.must(logical.UpdateOperation, "config/us-south/rotate", nil)
	if kinds := m.events.take(); kinds[0] != string(eventConfigWrite) {
		t.Errorf("events are %q", kinds)
	}
}

// TestEndpoints_verifyOfNoValueIsItsDefault has nothing stored that was not tried.
func TestEndpoints_verifyOfNoValueIsItsDefault(t *testing.T) {
	m, stranger := newMount(t), newMount(t)
	stranger.sim.RevokeKey(testKey)
	m.writeConfig("us-south", nil)
	before := m.storedConfig("us-south")
	for _, verify := range []any{nil, ""} {
		write := map[string]any{"token_url": stranger.url + "/apikey", "verify": verify}
		if status, text := m.failure(logical.UpdateOperation, "endpoints/us-south", write); status != http.StatusBadRequest || m.storedConfig("us-south") != before {
			t.Errorf("verify=%#v: responded %d %s", verify, status, text)
		}
	}
}

func TestEndpoints_thatRefuseTheKeyAreNotStored(t *testing.T) {
	for field, c := range map[string]struct{ path, says string }{
		"token_url": {"/apikey", `write endpoints: config "us-south" keeps its endpoints, because the stored key was tried at the new ones and failed; verify=false skips that: login token service at`},
		"iam_url":   {"", `write endpoints: config "us-south" keeps its endpoints, because the stored key was tried at the new ones and failed; verify=false skips that: iam token service at`},
	} {
		t.Run(field, func(t *testing.T) {
			m, stranger := newMount(t), newMount(t)
			stranger.sim.RevokeKey(testKey)
			m.writeConfig("us-south", map[string]any{"iam_url": m.url})
			token := m.readToken("us-south")["token_id"]
			before := m.storedConfig("us-south")
			write := map[string]any{field: stranger.url + c.path}
			status, text := m.failure(logical.UpdateOperation, "endpoints/us-south", write)
			if status != http.StatusBadRequest || !strings.HasPrefix(text, c.says) || strings.Contains(text, "create one") {
				t.Errorf("responded %d %s", status, text)
			}
			if m.storedConfig("us-south") != before || m.readToken("us-south")["token_id"] != token {
				t.Error("something was stored")
			}
			write["verify"] = false
			m.must(logical.UpdateOperation, "endpoints/us-south", write)
			if got := m.must(logical.ReadOperation, "endpoints/us-south", nil).Data[field]; got != write[field] {
				t.Errorf("%s is %v", field, got)
			}
		})
	}
}

// TestEndpoints_iamIsAskedOnce has a config of the iam service, whose key is
// exchanged and rotated at one address.
func TestEndpoints_iamIsAskedOnce(t *testing.T) {
	m := newMount(t)
	m.writeServiceConfig("iam", map[string]any{"token_url": nil, "iam_url": m.url})
	m.must(logical.UpdateOperation, "endpoints/iam", map[string]any{"iam_url": m.sameSimAt()})
	if got := m.sim.Counts().Exchanges; got != 2 {
		t.Errorf("%d exchanges, want one for each write", got)
	}
}

// TestEndpoints_caCertIsTriedWhereItCounts has the token service moved out of the CA
// that the config trusts, and then its IAM. A config that has IBM Cloud's IAM can
// have a CA for its token service all the same.
func TestEndpoints_caCertIsTriedWhereItCounts(t *testing.T) {
	m := newMount(t)
	one, two := startTLS(t), startTLS(t)
	both := one.CACertPEM() + two.CACertPEM()
	m.writeConfig("eu-gb", map[string]any{"token_url": one.URL() + "/apikey", "ca_cert": one.CACertPEM()})
	m.must(logical.UpdateOperation, "endpoints/eu-gb", map[string]any{"ca_cert": both})
	m.writeConfig("us-south", map[string]any{"token_url": one.URL() + "/apikey", "iam_url": one.URL(), "ca_cert": one.CACertPEM()})
	for _, c := range []struct {
		write  map[string]any
		status int
	}{
		{map[string]any{"ca_cert": two.CACertPEM()}, http.StatusBadGateway},
		{map[string]any{"ca_cert": two.CACertPEM(), "token_url": two.URL() + "/apikey"}, http.StatusBadGateway},
		{map[string]any{"ca_cert": both, "token_url": two.URL() + "/apikey"}, 0},
		{map[string]any{"ca_cert": two.CACertPEM()}, http.StatusBadGateway},
		{map[string]any{"ca_cert": two.CACertPEM(), "iam_url": two.URL()}, 0},
	} {
		if c.status == 0 {
			m.must(logical.UpdateOperation, "endpoints/us-south", c.write)
			continue
		}
		if status, text := m.failure(logical.UpdateOperation, "endpoints/us-south", c.write); status != c.status {
			t.Errorf("responded %d %s", status, text)
		}
	}
	m.readToken("us-south")
}

func TestEndpoints_apiURLAloneMakesNoExchange(t *testing.T) {
	m := newMount(t)
	m.sim.AddLimitedKey(testKey, apicsim.KeyOptions{SingleUse: true})
	m.writeServiceConfig("platform", nil)
	token := m.readToken("platform")["token_id"]
	m.must(logical.UpdateOperation, "endpoints/platform", map[string]any{"api_url": "https://api.example"})
	read := m.readToken("platform")
	if read["token_id"] != token || read["api_url"] != "https://api.example" || m.sim.Counts().Exchanges != 1 {
		t.Errorf("after %d exchanges readers get the token %v for %v", m.sim.Counts().Exchanges, read["token_id"], read["api_url"])
	}
}

// TestEndpoints_unverifiedCACertKeepsTheToken has a key that could not get another.
func TestEndpoints_unverifiedCACertKeepsTheToken(t *testing.T) {
	m := newMount(t)
	m.sim.AddLimitedKey(testKey, apicsim.KeyOptions{SingleUse: true})
	m.writeServiceConfig("platform", map[string]any{"renew": false})
	token := m.readToken("platform")["token_id"]
	write := map[string]any{"ca_cert": startTLS(t).CACertPEM()}
	if status, text := m.failure(logical.UpdateOperation, "endpoints/platform", write); status != http.StatusBadRequest {
		t.Fatalf("responded %d %s", status, text)
	}
	write["verify"] = false
	m.must(logical.UpdateOperation, "endpoints/platform", write)
	if m.readToken("platform")["token_id"] != token {
		t.Error("the shared token is gone")
	}
}

// TestEndpoints_unverifiedTokenURLDropsTheToken keeps a token of one service from
// being given out as one of another.
func TestEndpoints_unverifiedTokenURLDropsTheToken(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	token := m.readToken("us-south")["token_id"]
	m.must(logical.UpdateOperation, "endpoints/us-south", map[string]any{"token_url": m.sameSimAt() + "/apikey", "verify": false})
	if m.readToken("us-south")["token_id"] == token {
		t.Error("readers still share the old service's token")
	}
}

func TestEndpoints_emptyOrNullIsTheDefault(t *testing.T) {
	for name, empty := range map[string]any{"empty": "", "null": nil} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.writeConfig("us-south", map[string]any{"region": "eu-gb", "iam_url": m.url, "ca_cert": startTLS(t).CACertPEM()})
			m.must(logical.UpdateOperation, "endpoints/us-south", map[string]any{
				"region": empty, "token_url": empty, "api_url": empty, "iam_url": empty, "ca_cert": empty, "verify": false,
			})
			for field, want := range map[string]any{
				"region": "us-south", "token_url": "https://login.service.us-south.apiconnect.ibmcloud.com/apikey",
				"api_url": "https://apimanager.us-south.apiconnect.cloud.ibm.com", "iam_url": "https://iam.cloud.ibm.com", "ca_cert": "",
			} {
				if got := m.must(logical.ReadOperation, "endpoints/us-south", nil).Data[field]; got != want {
					t.Errorf("%s is %v, want %v", field, got, want)
				}
			}
		})
	}
}

func TestEndpoints_badFieldsAreRefused(t *testing.T) {
	m := newMount(t)
	m.writeServiceConfig("platform", nil)
	before := m.storedConfig("platform")
	for field, value := range map[string]any{
		"region": "us south", "token_url": "http://a.example/", "api_url": "https://a.example/?b", "iam_url": "https://iam.example",
		"ca_cert": "trust me", "verify": testKey,
	} {
		status, text := m.failure(logical.UpdateOperation, "endpoints/platform", map[string]any{field: value})
		if status != http.StatusBadRequest || !strings.HasPrefix(text, field+" ") {
			t.Errorf("%s: responded %d %s", field, status, text)
		}
		requireNoKey(t, text)
	}
	if m.storedConfig("platform") != before {
		t.Error("the stored config changed")
	}
}

// TestEndpoints_changeNothingElse holds what keeps this path to addresses: a key or
// token service would be the config's owner's to write.
func TestEndpoints_changeNothingElse(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	for field, value := range map[string]any{"api_key": "another-key", "token_service": "iam", "client_secret": "another", "max_retries": 7} {
		resp := m.must(logical.UpdateOperation, "endpoints/us-south", map[string]any{field: value})
		if resp == nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], field) {
			t.Errorf("%s: responded %v", field, resp)
		}
	}
	config := m.must(logical.ReadOperation, "config/us-south", nil).Data
	if config["token_service"] != "login" || config["max_retries"] != 0 || m.storedKeyID("us-south") != m.sim.KeyID(testKey) {
		t.Error("another field was changed")
	}
}

// TestEndpoints_managedKeyMovesAsItIs has IAM move to another address after a
// rotation, and then the config deleted, which has to delete the key there.
func TestEndpoints_managedKeyMovesAsItIs(t *testing.T) {
	for name, verify := range map[string]bool{"verified": true, "unverified": false} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.UpdateOperation, "config/us-south", map[string]any{"rotation_period": "24h"})
				m.rotate("us-south")
				before := m.must(logical.ReadOperation, "config/us-south", nil).Data
				time.Sleep(time.Hour)
				m.must(logical.UpdateOperation, "endpoints/us-south", map[string]any{"iam_url": "http://127.0.0.2", "verify": verify})
				m.requireSameKeyRecord(before)
				m.must(logical.DeleteOperation, "config/us-south", nil)
				if own := m.managedLiveKeys(); len(own) != 0 {
					t.Errorf("IAM still holds %d keys that rotation made", len(own))
				}
			})
		})
	}
}

func (m *mount) requireSameKeyRecord(before map[string]any) {
	m.Helper()
	after := m.must(logical.ReadOperation, "config/us-south", nil).Data
	for _, field := range []string{"api_key_id", "last_vault_rotation", "next_vault_rotation"} {
		if before[field] == nil || after[field] != before[field] {
			m.Errorf("%s was %v and is %v", field, before[field], after[field])
		}
	}
	if after["iam_url"] != "http://127.0.0.2" {
		m.Errorf("iam_url is %v", after["iam_url"])
	}
}

// TestConfigWrite_sameKeyElsewhereIsTheSameKey is the same of a write by somebody
// who has the key.
func TestConfigWrite_sameKeyElsewhereIsTheSameKey(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.UpdateOperation, "config/us-south", map[string]any{"rotation_period": "24h"})
		m.rotate("us-south")
		before := m.must(logical.ReadOperation, "config/us-south", nil).Data
		key := m.storedConfigOf("us-south").APIKey
		m.must(logical.UpdateOperation, "config/us-south", map[string]any{"api_key": key, "iam_url": "http://127.0.0.2"})
		m.requireSameKeyRecord(before)
	})
}

func TestEndpoints_waitForARotation(t *testing.T) {
	rotationTest(t, func(m *mount) {
		claim, err := m.backend.configs.claim(m.Context(), rotation.Ref{Config: "us-south"}, "rotated")
		if err != nil {
			m.Fatal(err)
		}
		defer claim.Release()
		begun := time.Now()
		if status, text := m.failure(logical.UpdateOperation, "endpoints/us-south", map[string]any{"api_url": ""}); status != http.StatusConflict {
			m.Errorf("responded %d %s", status, text)
		}
		if waited := time.Since(begun); waited != writeWait {
			m.Errorf("waited %s for the rotation", waited)
		}
	})
}

func TestEndpoints_standbysForward(t *testing.T) {
	for _, state := range []consts.ReplicationState{consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary} {
		m := newMount(t)
		m.writeConfig("us-south", nil)
		m.replication = state
		m.restart()
		if _, err := m.do(logical.UpdateOperation, "endpoints/us-south", map[string]any{"token_url": m.sameSimAt() + "/apikey"}); err != logical.ErrReadOnly {
			t.Errorf("error is %v", err)
		}
		if got := m.sim.Counts().Exchanges; got != 1 {
			t.Errorf("%d exchanges", got)
		}
		m.must(logical.ReadOperation, "endpoints/us-south", nil)
	}
}
