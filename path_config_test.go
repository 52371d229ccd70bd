// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// requireNoKey never prints what it searches.
func requireNoKey(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, testKey) || strings.Contains(text, testClientSecret) {
		t.Fatal("the text holds a secret")
	}
}

func TestConfigRead_showsNoKey(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	data := m.must(logical.ReadOperation, "config/us-south", nil).Data
	encoded, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	requireNoKey(t, string(encoded))
	want := map[string]any{
		"token_service": "login", "region": "us-south",
		"token_url": m.server.URL() + "/apikey", "api_url": m.server.URL(),
		"request_timeout": int64(10), "max_retries": 0, "refresh_before": int64(0),
		"cache": "true", "lease": false, "ca_cert": "",
	}
	for field, value := range want {
		if data[field] != value {
			t.Errorf("%s is %v, want %v", field, data[field], value)
		}
	}
	if _, ok := data["api_key"]; ok {
		t.Error("api_key is answered")
	}
}

func TestConfig_defaultURLsDependOnTheRegion(t *testing.T) {
	m := newMount(t)
	m.must(logical.CreateOperation, "config/us-south", map[string]any{"api_key": testKey, "verify": false})
	data := m.must(logical.ReadOperation, "config/us-south", nil).Data
	if data["token_url"] != "https://login.service.us-south.apiconnect.ibmcloud.com/apikey" {
		t.Errorf("token_url is %v", data["token_url"])
	}
	if data["api_url"] != "https://apimanager.us-south.apiconnect.cloud.ibm.com" {
		t.Errorf("api_url is %v", data["api_url"])
	}
}

// A config whose name is no region needs a region or both URLs.
func TestConfigCreate_nameThatIsNoRegion(t *testing.T) {
	m := newMount(t)
	status, text := m.failure(logical.CreateOperation, "config/Prod_1", map[string]any{"api_key": testKey, "verify": false})
	if status != 400 || !strings.HasPrefix(text, "region ") {
		t.Fatalf("answered %d %s", status, text)
	}
	m.writeConfig("Prod_1", nil)
	m.readToken("Prod_1")
}

func TestConfigCreate_keyAsDownloadedFile(t *testing.T) {
	for name, key := range map[string]any{
		"the bare key":              testKey,
		"the bare key and newline":  testKey + "\n",
		"the console's apikey.json": `{"name":"n","description":"","createdAt":"2026-01-01T00:00+0000","apikey":"` + testKey + `"}`,
		"a capitalised member":      `{"Apikey":"` + testKey + `"}`,
		"a JSON object in the body": map[string]any{"name": "n", "apikey": testKey},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.writeConfig("us-south", map[string]any{"api_key": key})
			m.readToken("us-south")
		})
	}
}

// Bad input is refused by an error that names the field, and changes nothing.
func TestConfigWrite_badInput(t *testing.T) {
	cases := []struct {
		name, field string
		data        map[string]any
	}{
		{"an empty key", "api_key", map[string]any{"api_key": ""}},
		{"a key of white space", "api_key", map[string]any{"api_key": " \t\n"}},
		{"a key with control characters", "api_key", map[string]any{"api_key": "abc\x00def"}},
		{"a key with a space inside", "api_key", map[string]any{"api_key": "abc def"}},
		{"a key with non-ASCII characters", "api_key", map[string]any{"api_key": "schlüssel"}},
		{"an endless key", "api_key", map[string]any{"api_key": strings.Repeat("k", maxAPIKeyLength+1)}},
		{"JSON that is no apikey.json", "api_key", map[string]any{"api_key": `{"name":"x"}`}},
		{"JSON with two keys", "api_key", map[string]any{"api_key": `{"apikey":"a","ApiKey":"b"}`}},
		{"JSON whose key is a number", "api_key", map[string]any{"api_key": `{"apikey":5}`}},
		{"JSON that does not parse", "api_key", map[string]any{"api_key": `{"apikey":`}},
		{"a list of keys", "api_key", map[string]any{"api_key": []any{testKey}}},
		{"a null key", "api_key", map[string]any{"api_key": nil}},
		{"an unknown token service", "token_service", map[string]any{"token_service": "ftp"}},
		{"a region that is no DNS label", "region", map[string]any{"region": "us south"}},
		{"a region that would leave its place in the URL", "region", map[string]any{"region": "evil.example/"}},
		{"a region that is too long", "region", map[string]any{"region": strings.Repeat("a", 64)}},
		{"a client id for a service that accepts none", "client_id", map[string]any{"client_id": "client"}},
		{"a client secret for a service that accepts none", "client_secret", map[string]any{"client_secret": testClientSecret}},
		{"credentials for a service that accepts none", "credentials", map[string]any{"credentials": testCredentials}},
		{"the platform without credentials", "client_id and client_secret", map[string]any{"token_service": "platform"}},
		{"the platform with half of its credentials", "client_id and client_secret", map[string]any{"token_service": "platform", "client_id": "client"}},
		{"credentials that are no JSON", "credentials", map[string]any{"token_service": "platform", "credentials": testClientSecret}},
		{"credentials of another shape", "credentials", map[string]any{"token_service": "platform", "credentials": `{"client_secret":"` + testClientSecret + `"}`}},
		{"a client secret with control characters", "client_secret", map[string]any{"token_service": "platform", "client_id": "client", "client_secret": testClientSecret + "\x00"}},
		{"http off loopback", "token_url", map[string]any{"token_url": "http://login.example/apikey"}},
		{"http to a host that begins like loopback", "token_url", map[string]any{"token_url": "http://127.0.0.1.example/"}},
		{"a URL with user info", "token_url", map[string]any{"token_url": "https://u:p@login.example/"}},
		{"a URL with a fragment", "api_url", map[string]any{"api_url": "https://login.example/#x"}},
		{"a URL with a query", "token_url", map[string]any{"token_url": "https://login.example/?x=1"}},
		{"a URL with a bare fragment", "iam_url", map[string]any{"iam_url": "https://iam.example#"}},
		{"a path where none belongs", "iam_url", map[string]any{"iam_url": "https://iam.example/v1"}},
		{"a host of bytes that are no text", "token_url", map[string]any{"token_url": "https://%ff.example/"}},
		{"a URL without a host", "token_url", map[string]any{"token_url": "https:///apikey"}},
		{"another scheme", "api_url", map[string]any{"api_url": "ftp://login.example/"}},
		{"a bad PEM", "ca_cert", map[string]any{"ca_cert": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}},
		{"a private key for a CA", "ca_cert", map[string]any{"ca_cert": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"}},
		{"text for a CA", "ca_cert", map[string]any{"ca_cert": "trust me"}},
		{"a negative timeout", "request_timeout", map[string]any{"request_timeout": "-5s"}},
		{"a timeout of nothing", "request_timeout", map[string]any{"request_timeout": "0"}},
		{"an absurd timeout", "request_timeout", map[string]any{"request_timeout": "1000h"}},
		{"a timeout that is no duration", "request_timeout", map[string]any{"request_timeout": "soon"}},
		{"negative retries", "max_retries", map[string]any{"max_retries": -1}},
		{"absurd retries", "max_retries", map[string]any{"max_retries": 1000}},
		{"a negative refresh_before", "refresh_before", map[string]any{"refresh_before": "-1h"}},
		{"an absurd refresh_before", "refresh_before", map[string]any{"refresh_before": "9999h"}},
		{"a cache that is no mode", "cache", map[string]any{"cache": "perhaps"}},
		{"a cache of a list", "cache", map[string]any{"cache": []any{"entity"}}},
		{"the key for a cache", "cache", map[string]any{"cache": testKey}},
		{"the key for a timeout", "request_timeout", map[string]any{"request_timeout": testKey}},
		{"the key for a number", "max_retries", map[string]any{"max_retries": testKey}},
		{"the key for a duration", "refresh_before", map[string]any{"refresh_before": testKey}},
		{"the key for a boolean", "lease", map[string]any{"lease": testKey}},
		{"the key for verify", "verify", map[string]any{"verify": testKey}},
		{"the key in an object for a URL", "token_url", map[string]any{"token_url": map[string]any{"a": testKey}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newMount(t)
			m.writeConfig("us-south", nil)
			before := m.storedConfig("us-south")
			data := map[string]any{"api_key": testKey}
			for field, value := range c.data {
				data[field] = value
			}
			for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				if op == logical.UpdateOperation && c.name == "a null key" {
					continue // Only a merge patch can say null; see the next test.
				}
				status, text := m.failure(op, "config/us-south", data)
				if status != 400 || !strings.Contains(text, c.field) {
					t.Fatalf("%s answered %d %s", op, status, text)
				}
				requireNoKey(t, text)
			}
			if m.storedConfig("us-south") != before {
				t.Fatal("the stored config changed")
			}
		})
	}
}

func (m *mount) storedConfig(name string) string {
	m.Helper()
	entry, err := m.storage.Storage.Get(context.Background(), "config/"+name)
	if err != nil {
		m.Fatal(err)
	}
	if entry == nil {
		return ""
	}
	return string(entry.Value)
}

// stored are the fields of a stored config.
func (m *mount) stored(name string) map[string]any {
	m.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(m.storedConfig(name)), &fields); err != nil {
		m.Fatal(err)
	}
	return fields
}

func TestConfigCreate_withoutAKeyIsRefused(t *testing.T) {
	m := newMount(t)
	for _, data := range []map[string]any{nil, {"api_key": nil}} {
		status, text := m.failure(logical.CreateOperation, "config/us-south", data)
		if status != 400 || !strings.HasPrefix(text, "api_key ") {
			t.Fatalf("answered %d %s", status, text)
		}
	}
}

func TestConfigCreate_oddNamesAreRefused(t *testing.T) {
	m := newMount(t)
	for _, name := range []string{"a/b", "a b", "-a", "a-", "ü", "a\x00", "..", "a..b", "a%2Fb", strings.Repeat("a", 129)} {
		status, text := m.failure(logical.CreateOperation, "config/"+name, m.configData(nil))
		if status != 400 || !strings.HasPrefix(text, "name ") {
			t.Errorf("%q: answered %d %s", name, status, text)
		}
	}
	if names := m.must(logical.ListOperation, "config/", nil).Data["keys"]; names != nil {
		t.Fatalf("stored are %v", names)
	}
}

func TestConfigWrite_unknownFieldWarns(t *testing.T) {
	m := newMount(t)
	resp := m.must(logical.CreateOperation, "config/us-south", m.configData(map[string]any{"regoin": "x"}))
	if resp == nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "regoin") {
		t.Fatalf("answered %v", resp)
	}
}

func TestConfigUpdate_changesOnlyWhatItNames(t *testing.T) {
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		t.Run(string(op), func(t *testing.T) {
			m := newMount(t)
			m.writeConfig("us-south", map[string]any{"request_timeout": "7s"})
			before := m.must(logical.ReadOperation, "config/us-south", nil).Data
			token := m.readToken("us-south")["token"]
			m.must(op, "config/us-south", map[string]any{"max_retries": 5})
			after := m.must(logical.ReadOperation, "config/us-south", nil).Data
			before["max_retries"], before["updated_at"] = 5, after["updated_at"]
			for field, value := range before {
				if after[field] != value {
					t.Errorf("%s became %v, was %v", field, after[field], value)
				}
			}
			if m.readToken("us-south")["token"] != token || m.sim.Counts().Exchanges != 1 {
				t.Error("a write without a key gave up the shared token")
			}
		})
	}
}

func TestConfigPatch_nullResetsToTheDefault(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"request_timeout": "7s", "max_retries": 5, "cache": false})
	m.must(logical.PatchOperation, "config/us-south", map[string]any{"request_timeout": nil, "max_retries": nil, "cache": nil})
	data := m.must(logical.ReadOperation, "config/us-south", nil).Data
	if data["request_timeout"] != int64(10) || data["max_retries"] != 2 || data["cache"] != "true" {
		t.Fatalf("config is %v", data)
	}
}

func TestConfigPatch_ofNoConfigIsRefused(t *testing.T) {
	m := newMount(t)
	status, text := m.failure(logical.PatchOperation, "config/us-south", m.configData(nil))
	if status != 400 || !strings.Contains(text, `vault write <mount>/config/us-south api_key=`) {
		t.Fatalf("answered %d %s", status, text)
	}
}

// A client that does not know the key cannot have it sent elsewhere.
func TestDestination_needsTheKey(t *testing.T) {
	ca := startTLS(t).CACertPEM()
	for field, value := range map[string]any{
		"token_service": "iam",
		"region":        "eu-gb",
		"token_url":     "https://elsewhere.example/apikey",
		"api_url":       "https://elsewhere.example",
		"iam_url":       "https://elsewhere.example",
		"ca_cert":       ca,
	} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
			t.Run(string(op)+" of "+field, func(t *testing.T) {
				m := newMount(t)
				m.writeConfig("us-south", nil)
				before := m.storedConfig("us-south")
				for _, verify := range []bool{true, false} {
					status, text := m.failure(op, "config/us-south", map[string]any{field: value, "verify": verify})
					if status != 400 || !strings.HasPrefix(text, "api_key ") {
						t.Fatalf("answered %d %s", status, text)
					}
				}
				if m.storedConfig("us-south") != before {
					t.Fatal("the stored config changed")
				}
				m.must(op, "config/us-south", map[string]any{field: value, "verify": false, "api_key": testKey})
			})
		}
	}
}

func TestDestination_resetOfTheTokenURLIsAChange(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	status, text := m.failure(logical.PatchOperation, "config/us-south", map[string]any{"token_url": nil})
	if status != 400 || !strings.HasPrefix(text, "api_key ") {
		t.Fatalf("answered %d %s", status, text)
	}
}

func TestDestination_thatStaysTheSameNeedsNoKey(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.must(logical.UpdateOperation, "config/us-south", map[string]any{
		"region": "us-south", "token_url": m.server.URL() + "/apikey", "token_service": "login", "ca_cert": "",
	})
}

func TestVerification_failedStoresNothing(t *testing.T) {
	m := newMount(t)
	status, text := m.failure(logical.CreateOperation, "config/us-south", m.configData(map[string]any{"api_key": "another-key"}))
	if status != 400 || !strings.Contains(text, "refused the API key") {
		t.Fatalf("answered %d %s", status, text)
	}
	if m.storedConfig("us-south") != "" {
		t.Fatal("the config was stored")
	}
	m.writeConfig("us-south", nil)
	before := m.storedConfig("us-south")
	m.failure(logical.UpdateOperation, "config/us-south", map[string]any{"api_key": "another-key"})
	if m.storedConfig("us-south") != before {
		t.Fatal("the stored config changed")
	}
	m.readToken("us-south")
}

func TestVerification_tokenBecomesTheSharedOne(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.readToken("us-south")
	if got := m.sim.Counts().Exchanges; got != 1 {
		t.Fatalf("%d exchanges", got)
	}
}

func TestVerification_canBeSkipped(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"api_key": "another-key", "verify": false})
	if got := m.sim.Counts().Exchanges; got != 0 {
		t.Fatalf("%d exchanges", got)
	}
}

func TestConfigDelete_removesItsTokenToo(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	resp := m.must(logical.DeleteOperation, "config/us-south", nil)
	if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "stay valid until they expire") {
		t.Fatalf("warnings are %q", resp.Warnings)
	}
	if resp := m.must(logical.ReadOperation, "config/us-south", nil); resp != nil {
		t.Fatal("the config is still there")
	}
	if status, _ := m.failure(logical.ReadOperation, "token/us-south", nil); status != 400 {
		t.Fatalf("status is %d", status)
	}
	if resp := m.must(logical.DeleteOperation, "config/us-south", nil); resp != nil {
		t.Fatal("a second delete answered something")
	}
}

func TestConfigWrite_overtakenStoresNothing(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	before := m.backend.configs.inUse("us-south").config
	stale := before.withKeys(before.Keys)
	m.must(logical.UpdateOperation, "config/us-south", map[string]any{"max_retries": 5})
	fresh, err := m.backend.configs.wire("us-south", stale, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.close()
	err = m.backend.configs.Update(context.Background(), "us-south", before, fresh, nil)
	if err == nil || !strings.Contains(err.Error(), "another write") {
		t.Fatalf("error is %v", err)
	}
	if got := m.must(logical.ReadOperation, "config/us-south", nil).Data["max_retries"]; got != 5 {
		t.Fatalf("max_retries is %v", got)
	}
}

// A config of a newer schema is refused, and never rewritten.
func TestConfig_ofANewerSchemaIsNotRewritten(t *testing.T) {
	m := newMount(t)
	newer := `{"schema":3,"api_key":"` + testKey + `","request_timeout":"10s","created_at":7,"revision":"seven"}`
	if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: "config/us-south", Value: []byte(newer)}); err != nil {
		t.Fatal(err)
	}
	for _, request := range []struct {
		op   logical.Operation
		path string
		data map[string]any
	}{
		{logical.ReadOperation, "config/us-south", nil},
		{logical.UpdateOperation, "config/us-south", m.configData(nil)},
		{logical.PatchOperation, "config/us-south", m.configData(nil)},
		{logical.ReadOperation, "token/us-south", nil},
	} {
		status, text := m.failure(request.op, request.path, request.data)
		if status != 500 || !strings.Contains(text, "newer version of the plugin") {
			t.Errorf("%s %s answered %d %s", request.op, request.path, status, text)
		}
	}
	if m.storedConfig("us-south") != newer {
		t.Fatal("the entry was rewritten")
	}
	_, exists, err := m.backend.HandleExistenceCheck(context.Background(), &logical.Request{Operation: logical.CreateOperation, Path: "config/us-south", Storage: m.storage})
	if err != nil || !exists {
		t.Fatalf("Vault would not let the write say so: exists %v, error %v", exists, err)
	}
}

func TestConfig_undecodableEntryIsNotQuoted(t *testing.T) {
	m := newMount(t)
	broken := `{"api_key":"` + testKey + `","max_retries":"` + testKey + `"}`
	if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: "config/us-south", Value: []byte(broken)}); err != nil {
		t.Fatal(err)
	}
	status, text := m.failure(logical.ReadOperation, "token/us-south", nil)
	if status != 500 {
		t.Fatalf("answered %d %s", status, text)
	}
	requireNoKey(t, text)
}

// A storage failure at any call leaves the stored config and its token in use.
func TestConfigWrite_storageFailureAtAnyCall(t *testing.T) {
	for n := int64(1); ; n++ {
		m := newMount(t)
		m.writeConfig("us-south", nil)
		before := m.storedConfig("us-south")
		m.storage.failNth(n)
		calls := m.storage.calls.Load()
		resp, err := m.do(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"region": "eu-gb"}))
		if m.storage.calls.Load() < calls+n {
			if err != nil || resp.IsError() {
				t.Fatalf("the undisturbed write failed: %v %v", resp, err)
			}
			if n < 3 {
				t.Fatalf("only %d storage calls were tried", n-1)
			}
			return
		}
		status, responseErr := logical.RespondErrorCommon(&logical.Request{Operation: logical.UpdateOperation}, resp, err)
		if status != 500 || !strings.Contains(responseErr.Error(), "write config") {
			t.Fatalf("call %d: answered %d %v", n, status, responseErr)
		}
		if m.storedConfig("us-south") != before {
			t.Fatalf("call %d: the stored config changed", n)
		}
		if got := m.readToken("us-south")["region"]; got != "us-south" {
			t.Fatalf("call %d: the config in memory changed", n)
		}
	}
}

func TestConfig_writtenByAnotherNodeIsReadAgain(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.readToken("us-south")
	if err := m.storage.Delete(context.Background(), "config/us-south"); err != nil {
		t.Fatal(err)
	}
	m.backend.InvalidateKey(context.Background(), "config/us-south")
	if status, _ := m.failure(logical.ReadOperation, "token/us-south", nil); status != 400 {
		t.Fatalf("status is %d", status)
	}
}

func TestCACert_isTrusted(t *testing.T) {
	m := newMount(t)
	server := startTLS(t)
	elsewhere := map[string]any{"token_url": server.URL() + "/apikey", "api_url": server.URL()}
	status, text := m.failure(logical.CreateOperation, "config/us-south", m.configData(elsewhere))
	if status != 502 || !strings.Contains(text, "certificate that is not trusted") {
		t.Fatalf("answered %d %s", status, text)
	}
	elsewhere["ca_cert"] = server.CACertPEM()
	m.writeConfig("us-south", elsewhere)
	m.readToken("us-south")
}

func startTLS(t *testing.T) *apicsim.Server {
	t.Helper()
	sim := newStrangeSim(t)
	server, err := apicsim.StartTLS(sim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// TestConfigWrite_readOnlyStorageForwards has storage fail as it does on a node that
// may not write, where the error reaches a plugin as mere text.
func TestConfigWrite_readOnlyStorageForwards(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.storage.refuseWrites.Store(true)
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation} {
		_, err := m.do(op, "config/us-south", map[string]any{"max_retries": 1})
		if err != logical.ErrReadOnly {
			t.Errorf("%s: error is %v", op, err)
		}
	}
}

const testCredentials = `{"toolkit":{"endpoint":"https://api.example/api","client_id":"client","client_secret":"` + testClientSecret + `"}}`

// servicePaths are where the simulation serves each token service.
func servicePaths() map[string]string {
	return map[string]string{"login": "/apikey", "iam": "/identity/token", "platform": "/api/token"}
}

// writeServiceConfig writes a config of a token service under its own name.
func (m *mount) writeServiceConfig(service string, overrides map[string]any) {
	m.Helper()
	data := map[string]any{"token_service": service, "token_url": m.server.URL() + servicePaths()[service]}
	if service == "platform" {
		data["credentials"] = testCredentials
	}
	for field, value := range overrides {
		data[field] = value
	}
	m.writeConfig(service, data)
}

// Every token service issues a token, and no answer shows a secret.
func TestTokenService_eachIssuesAToken(t *testing.T) {
	for service := range servicePaths() {
		t.Run(service, func(t *testing.T) {
			m := newMount(t)
			m.writeServiceConfig(service, nil)
			if got := m.readToken(service)["token_id"]; got != m.sim.Issued()[0].ID {
				t.Errorf("token_id is %v", got)
			}
			encoded, err := json.Marshal(m.must(logical.ReadOperation, "config/"+service, nil).Data)
			if err != nil {
				t.Fatal(err)
			}
			requireNoKey(t, string(encoded))
		})
	}
}

func TestTokenService_defaultURLs(t *testing.T) {
	for service, want := range map[string][2]string{
		"login":    {"https://login.service.eu-gb.apiconnect.ibmcloud.com/apikey", "https://apimanager.eu-gb.apiconnect.cloud.ibm.com"},
		"iam":      {"https://iam.cloud.ibm.com/identity/token", ""},
		"platform": {"https://platform-api.eu-gb.apiconnect.automation.ibm.com/api/token", "https://platform-api.eu-gb.apiconnect.automation.ibm.com"},
	} {
		t.Run(service, func(t *testing.T) {
			m := newMount(t)
			data := map[string]any{"api_key": testKey, "token_service": service, "verify": false}
			if service == "platform" {
				data["credentials"] = testCredentials
			}
			m.must(logical.CreateOperation, "config/eu-gb", data)
			got := m.must(logical.ReadOperation, "config/eu-gb", nil).Data
			if got["token_url"] != want[0] || got["api_url"] != want[1] {
				t.Fatalf("token_url is %v, api_url %v", got["token_url"], got["api_url"])
			}
		})
	}
}

// The API manager of a self-managed platform is where its tokens come from.
func TestTokenService_apiURLOfASelfManagedPlatform(t *testing.T) {
	m := newMount(t)
	m.writeServiceConfig("platform", map[string]any{"api_url": ""})
	if got := m.readToken("platform")["api_url"]; got != m.server.URL() {
		t.Fatalf("api_url is %v", got)
	}
}

// A platform key that can be used once is used for the token that readers get.
func TestVerification_singleUseKey(t *testing.T) {
	m := newMount(t)
	m.sim.AddLimitedKey(testKey, apicsim.KeyOptions{SingleUse: true})
	m.writeServiceConfig("platform", map[string]any{"renew": false})
	id := m.readToken("platform")["token_id"]
	m.must(logical.PatchOperation, "config/platform", map[string]any{"max_retries": 1})
	if m.readToken("platform")["token_id"] != id || m.sim.Counts().Exchanges != 1 {
		t.Fatal("the key was spent again")
	}
	status, text := m.failure(logical.UpdateOperation, "token/platform", nil)
	if status != 400 || !strings.Contains(text, "refused the API key") || !strings.Contains(text, "Multiple use of apikey") {
		t.Fatalf("answered %d %s", status, text)
	}
}

// TestClientCredentials_changeWithoutTheKey holds the decision that client credentials
// say who asks, not where the key goes.
func TestClientCredentials_changeWithoutTheKey(t *testing.T) {
	m := newMount(t)
	m.writeServiceConfig("platform", map[string]any{"renew": false})
	m.must(logical.PatchOperation, "config/platform", map[string]any{
		"client_id": "another", "client_secret": "another",
		"token_service": "platform", "token_url": m.server.URL() + "/api/token", "api_url": m.server.URL(),
	})
	if got := m.must(logical.ReadOperation, "config/platform", nil).Data["client_id"]; got != "another" {
		t.Fatalf("client_id is %v", got)
	}
	status, text := m.failure(logical.UpdateOperation, "token/platform", nil)
	if status != 400 || !strings.Contains(text, "client credentials") {
		t.Fatalf("answered %d %s", status, text)
	}
}

// A config that changes from the platform to another service does not keep its client
// credentials.
func TestClientCredentials_endWithThePlatform(t *testing.T) {
	m := newMount(t)
	m.writeServiceConfig("platform", map[string]any{"renew": false})
	m.must(logical.UpdateOperation, "config/platform", map[string]any{
		"api_key": testKey, "token_service": "login", "token_url": m.server.URL() + "/apikey",
	})
	if strings.Contains(m.storedConfig("platform"), testClientSecret) {
		t.Fatal("the client secret is still stored")
	}
}

func TestExistenceCheck_doesNotQuoteWhatWasSent(t *testing.T) {
	m := newMount(t)
	_, exists, err := m.backend.HandleExistenceCheck(context.Background(), &logical.Request{
		Operation: logical.CreateOperation, Path: "config/us-south", Storage: m.storage,
		Data: map[string]any{"max_retries": testKey, "name": "another"},
	})
	if err != nil || exists {
		t.Fatalf("exists %t, error %v", exists, err)
	}
}

// TestDestination_madeUpKeyMovesNoClientSecret has somebody who may write the config,
// and knows neither key nor client secret, make a key up.
func TestDestination_madeUpKeyMovesNoClientSecret(t *testing.T) {
	m := newMount(t)
	m.writeServiceConfig("platform", nil)
	elsewhere := map[string]any{"api_key": "made-up", "token_url": "https://elsewhere.example/"}
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		status, text := m.failure(op, "config/platform", elsewhere)
		if status != 400 || !strings.HasPrefix(text, "client_secret is required again") {
			t.Errorf("%s answered %d %s", op, status, text)
		}
	}
	elsewhere["credentials"], elsewhere["verify"] = testCredentials, false
	elsewhere["token_service"], elsewhere["api_url"] = "platform", ""
	m.must(logical.UpdateOperation, "config/platform", elsewhere)
}

// A storage that fails after its effect leaves nothing old in use.
func TestConfigWrite_storageFailsAfterItsEffect(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.storage.lateFailures.Store(true)
	status, _ := m.failure(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"region": "eu-gb"}))
	if status != 500 || m.readToken("us-south")["region"] != "eu-gb" {
		t.Errorf("after a write with status %d the old config is in use", status)
	}
	if status, _ := m.failure(logical.DeleteOperation, "config/us-south", nil); status != 500 {
		t.Errorf("status is %d", status)
	}
	if status, _ := m.failure(logical.ReadOperation, "token/us-south", nil); status != 400 {
		t.Errorf("after a deletion a read is answered %d", status)
	}
}

func TestConfigWrite_overtakenRestoresNoDeletedKey(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	before := m.backend.configs.inUse("us-south").config
	fresh, err := m.backend.configs.wire("us-south", before.withKeys(before.Keys), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.close()
	m.must(logical.DeleteOperation, "config/us-south", nil)
	m.sim.AddKey("second-key")
	m.writeConfig("us-south", map[string]any{"api_key": "second-key"})
	if err := m.backend.configs.Update(context.Background(), "us-south", before, fresh, nil); err == nil {
		t.Error("the overtaken write was stored")
	}
	if strings.Contains(m.storedConfig("us-south"), testKey) {
		t.Error("the deleted key is back")
	}
}

func TestConfigPatch_nullCredentialsChangeNothing(t *testing.T) {
	m := newMount(t)
	m.writeServiceConfig("platform", nil)
	m.must(logical.PatchOperation, "config/platform", map[string]any{"credentials": nil})
	if got := m.must(logical.ReadOperation, "config/platform", nil).Data["client_id"]; got != "client" {
		t.Fatalf("client_id is %v", got)
	}
}
