// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestTokenService_inferredOnCreate(t *testing.T) {
	for _, c := range []struct {
		name string
		data map[string]any
		want string // It is empty for a create that is refused.
	}{
		{"nothing", nil, "login"},
		{"credentials", map[string]any{"credentials": testCredentials}, "platform"},
		{"the client id and secret", map[string]any{"client_id": "client", "client_secret": testClientSecret}, "platform"},
		{"the client id alone", map[string]any{"client_id": "client"}, ""},
		{"the client secret alone", map[string]any{"client_secret": testClientSecret}, ""},
		{"null for the service, and credentials", map[string]any{"token_service": nil, "credentials": testCredentials}, "platform"},
		{"null for the credentials", map[string]any{"credentials": nil, "client_id": nil, "client_secret": nil}, "login"},
		{"the platform by name", map[string]any{"token_service": "platform", "credentials": testCredentials}, "platform"},
		{"iam by name", map[string]any{"token_service": "iam"}, "iam"},
		{"iam by name, and credentials", map[string]any{"token_service": "iam", "credentials": testCredentials}, ""},
		{"login by name, and credentials", map[string]any{"token_service": "login", "credentials": testCredentials}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMount(t)
			data := map[string]any{"api_key": testKey, "verify": false}
			maps.Copy(data, c.data)
			if c.want == "" {
				if status, text := m.failure(logical.CreateOperation, "config/us-south", data); status != http.StatusBadRequest {
					t.Fatalf("responded %d %s", status, text)
				}
				return
			}
			m.must(logical.CreateOperation, "config/us-south", data)
			if got := m.must(logical.ReadOperation, "config/us-south", nil).Data["token_service"]; got != c.want {
				t.Errorf("token_service is %v, want %s", got, c.want)
			}
		})
	}
}

// TestTokenService_nullInAPatchIsLogin has null stand for the default. Beside client
// credentials it is not enough to send them to the platform.
func TestTokenService_nullInAPatchIsLogin(t *testing.T) {
	m := newMount(t)
	m.writeServiceConfig("platform", map[string]any{"renew": false})
	back := map[string]any{"token_service": nil, "token_url": m.url + "/apikey", "api_key": testKey}
	if status, text := m.failure(logical.PatchOperation, "config/platform", map[string]any{"token_service": nil}); status != http.StatusBadRequest || !strings.HasPrefix(text, "api_key is required again") {
		t.Errorf("without the key: responded %d %s", status, text)
	}
	m.must(logical.PatchOperation, "config/platform", back)
	if got := m.must(logical.ReadOperation, "config/platform", nil).Data["token_service"]; got != "login" {
		t.Errorf("token_service is %v", got)
	}
	back["credentials"] = testCredentials
	if status, text := m.failure(logical.PatchOperation, "config/platform", back); status != http.StatusBadRequest || !strings.HasSuffix(text, "name these fields again, with the values that you want: token_service, api_url") {
		t.Errorf("with credentials: responded %d %s", status, text)
	}
}

// TestTokenService_inferredConfigGivesTokens has the platform, which nobody named, take
// the key and the credentials.
func TestTokenService_inferredConfigGivesTokens(t *testing.T) {
	m := newMount(t)
	m.must(logical.CreateOperation, "config/saas", map[string]any{
		"api_key": testKey, "credentials": testCredentials, "token_url": m.url + "/api/token",
	})
	if got := m.readToken("saas")["api_url"]; got != m.url {
		t.Errorf("api_url is %v, want the platform's own host", got)
	}
}

func TestTokenService_isNotInferredLater(t *testing.T) {
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		m := newMount(t)
		m.writeConfig("login", nil)
		for field, value := range map[string]any{"client_id": "client", "client_secret": testClientSecret, "credentials": testCredentials} {
			status, text := m.failure(op, "config/login", map[string]any{field: value, "api_key": testKey})
			if status != http.StatusBadRequest || !strings.Contains(text, field+" is accepted by the platform token service only, and this config's is login") {
				t.Errorf("%s of %s responded %d %s", op, field, status, text)
			}
		}
		m.writeServiceConfig("platform", nil)
		m.must(op, "config/platform", map[string]any{"max_retries": 1})
		if got := m.must(logical.ReadOperation, "config/platform", nil).Data["token_service"]; got != "platform" {
			t.Errorf("after an %s without credentials token_service is %v", op, got)
		}
	}
}

const (
	setPlatform = "for API Connect SaaS and self-managed V10 or V12 set token_service=platform with credentials=@credentials.json"
	setIAM      = "for a V10 Reserved Instance set token_service=iam"
	setLogin    = "for the V5 service on IBM Cloud set token_service=login"
	readWhich   = "; docs/token-services.md says which is yours"

	// afterDefault is how an error ends where login was not named.
	afterDefault = "; no token_service was named, so this was login (the V5 service on IBM Cloud): " + setPlatform + ", " + setIAM + readWhich
)

func TestTokenService_failedCreateNamesOthers(t *testing.T) {
	gone := startTLS(t)
	gone.Close()
	for _, c := range []struct {
		name   string
		fault  apicsim.Fault
		data   map[string]any
		status int
		starts string
		// ends is empty for an error that names no other service.
		ends string
	}{
		{"a refused key", apicsim.Fault{}, map[string]any{"api_key": "another-key"},
			400, "write config: login token service at 127.0.0.1:", afterDefault},
		{"a refused key of a login that was named", apicsim.Fault{}, map[string]any{"api_key": "another-key", "token_service": "login"},
			400, "write config: login token service at 127.0.0.1:", ""},
		{"a refused connection", apicsim.Fault{}, map[string]any{"token_url": gone.URL()},
			502, "write config: login token service at 127.0.0.1:", afterDefault},
		{"a refused connection of a platform", apicsim.Fault{}, map[string]any{"token_url": gone.URL(), "credentials": testCredentials},
			502, "write config: platform token service at 127.0.0.1:", ""},
		{"no such address", apicsim.Fault{Kind: apicsim.KindStatus, Status: 404}, nil,
			400, "write config: login token service at 127.0.0.1:", afterDefault},
		{"no such address of a login that was named", apicsim.Fault{Kind: apicsim.KindStatus, Status: 404}, map[string]any{"token_service": "login"},
			400, "write config: login token service at 127.0.0.1:", "; if login is not the token service that you meant: " + setPlatform + ", " + setIAM + readWhich},
		{"no such address of an inferred platform", apicsim.Fault{Kind: apicsim.KindStatus, Status: 404}, map[string]any{"credentials": testCredentials},
			400, "write config: platform token service at 127.0.0.1:", "; if platform is not the token service that you meant: " + setIAM + ", " + setLogin + readWhich},
		{"no JSON from iam", apicsim.Answering(""), map[string]any{"token_service": "iam"},
			502, "write config: iam token service at 127.0.0.1:", "; if iam is not the token service that you meant: " + setPlatform + ", " + setLogin + readWhich},
		{"another service's token", apicsim.Answering(`{"message":"welcome"}`), nil,
			502, "write config: login token service at 127.0.0.1:", afterDefault},
		{"a redirect", apicsim.Fault{Kind: apicsim.KindRedirect}, nil,
			502, "write config: login token service at 127.0.0.1:", afterDefault},
		{"a busy service", apicsim.Fault{Kind: apicsim.KindStatus, Status: 429}, nil,
			502, "write config: login token service at 127.0.0.1:", ""},
		{"a broken service", apicsim.Fault{Kind: apicsim.KindStatus, Status: 500}, nil,
			502, "write config: login token service at 127.0.0.1:", ""},
		{"a refused key of iam", apicsim.Fault{}, map[string]any{"token_service": "iam", "api_key": "another-key"},
			400, "write config: iam token service at 127.0.0.1:", ""},
		{"refused credentials", apicsim.Fault{}, map[string]any{"client_id": "another", "client_secret": "another"},
			400, "write config: platform token service at 127.0.0.1:", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMount(t)
			m.sim.Inject(c.fault)
			status, text := m.failure(logical.CreateOperation, "config/us-south", m.configDataFor(c.data))
			if status != c.status || !strings.HasPrefix(text, c.starts) {
				t.Errorf("responded %d %s", status, text)
			}
			if named := strings.Contains(text, "token_service="); named != (c.ends != "") || !strings.HasSuffix(text, c.ends) {
				t.Errorf("the error is %q", text)
			}
			requireNoKey(t, text)
		})
	}
}

// configDataFor is configData with the simulation's address of the service that the
// data is for.
func (m *mount) configDataFor(data map[string]any) map[string]any {
	path := "/apikey"
	if data["token_service"] == "iam" {
		path = "/identity/token"
	}
	if data["credentials"] != nil || data["client_id"] != nil {
		path = "/api/token"
	}
	full := m.configData(map[string]any{"token_url": m.url + path})
	maps.Copy(full, data)
	return full
}

// TestTokenService_backoffNamesOthersToo has the second try of a new config meet the
// remembered failure of the first.
func TestTokenService_backoffNamesOthersToo(t *testing.T) {
	m := newMount(t)
	data := m.configData(map[string]any{"api_key": "another-key"})
	m.failure(logical.CreateOperation, "config/us-south", data)
	status, text := m.failure(logical.CreateOperation, "config/us-south", data)
	if status != http.StatusBadRequest || !strings.Contains(text, "the next attempt is possible in ") || !strings.HasSuffix(text, afterDefault) {
		t.Errorf("responded %d %s", status, text)
	}
}

// TestTokenService_notSuggestedForOtherReasons finds no other service named where the
// certificate is to blame, or where the config exists and has worked.
func TestTokenService_notSuggestedForOtherReasons(t *testing.T) {
	m := newMount(t)
	secured := startTLS(t)
	status, text := m.failure(logical.CreateOperation, "config/us-south", m.configData(map[string]any{"token_url": secured.URL() + "/apikey"}))
	if status != http.StatusBadGateway || strings.Contains(text, "token_service") {
		t.Errorf("an untrusted certificate: responded %d %s", status, text)
	}
	m.writeConfig("us-south", nil)
	status, text = m.failure(logical.UpdateOperation, "config/us-south", map[string]any{"api_key": "another-key", "token_url": m.url + "/apikey", "api_url": m.url})
	if status != http.StatusBadRequest || !strings.HasPrefix(text, "write config: login token service") || strings.Contains(text, "token_service") {
		t.Errorf("an update with a refused key: responded %d %s", status, text)
	}
}

func TestTokenService_helpSaysWhatIsInferred(t *testing.T) {
	m := newMount(t)
	resp, err := m.backend.HandleRequest(t.Context(), &logical.Request{Operation: logical.HelpOperation, Path: "config/us-south", Storage: m.storage})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(resp.Data["help"].(string)), " ")
	for _, says := range []string{
		"the service is platform if credentials, client_id or client_secret is given, and login otherwise. Later writes keep it",
		"does not name token_service, the service is platform if credentials, client_id or client_secret is given, and login otherwise",
		"Later writes infer nothing",
	} {
		if !strings.Contains(text, says) {
			t.Errorf("path-help does not say %q", says)
		}
	}
}

// TestTokenService_usedUpKey holds that a refusal is explained by the exchange before it.
func TestTokenService_usedUpKey(t *testing.T) {
	m := newMount(t)
	m.sim.AddLimitedKey("other-key", apicsim.KeyOptions{SingleUse: true, Life: 5 * time.Minute})
	m.writeConfig("saas", map[string]any{"api_key": "other-key", "token_service": "platform", "credentials": testCredentials, "token_url": m.url + "/api/token", "renew": false})
	if _, text := m.failure(logical.UpdateOperation, "token/saas", nil); !strings.Contains(text, "which worked before") {
		t.Errorf("the error is %q", text)
	}
}
