// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// check reads what a check has found, which holds no secret.
func (m *mount) check(name string) (data map[string]any, warnings []string) {
	m.Helper()
	resp := m.must(logical.ReadOperation, "config/"+name+"/check", nil)
	encoded, err := json.Marshal(resp)
	if err != nil {
		m.Fatal(err)
	}
	requireNoKey(m.T, string(encoded))
	return resp.Data, resp.Warnings
}

// checkUnchanged is check that fails if anything is stored, or any key made, changed or
// deleted.
func (m *mount) checkUnchanged(name string) (data map[string]any, warnings []string) {
	m.Helper()
	synctest.Wait()
	before, keys := m.sim.Counts(), m.sim.Keys()
	m.storage.watch = func(e *logical.StorageEntry) { m.Errorf("%s was stored", e.Key) }
	stored := m.storedConfig(name)
	data, warnings = m.check(name)
	synctest.Wait()
	m.storage.watch = nil
	after := m.sim.Counts()
	if after.KeysCreated != before.KeysCreated || after.KeysDeleted != before.KeysDeleted || !slices.Equal(m.sim.Keys(), keys) {
		m.Error("a key was made, changed or deleted")
	}
	if m.storedConfig(name) != stored {
		m.Error("the config was changed")
	}
	return data, warnings
}

// requireFinding wants a field to begin so, and to be in the list of its result alone.
func requireFinding(t *testing.T, data map[string]any, field string, of result, parts ...string) {
	t.Helper()
	text, _ := data[field].(string)
	if !strings.HasPrefix(text, string(of)+": ") {
		t.Errorf("%s is %q, want %s", field, text, of)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s is %q, without %q", field, text, part)
		}
	}
	for list, listed := range map[string]result{"errors": resultError, "warnings": resultWarning, "unknown": resultUnknown} {
		if got := slices.Contains(data[list].([]string), field); got != (listed == of) {
			t.Errorf("%s has %s: %t", list, field, got)
		}
	}
}

func TestConfigCheck_ofAConfigThatIsWell(t *testing.T) {
	rotationTest(t, func(m *mount) {
		data, warnings := m.checkUnchanged("us-south")
		requireFields(t, data, "ok", "errors", "warnings", "unknown", "checked_at",
			"token", "api_key", "api_key_expiry", "identity", "api_key_count", "rights", "unknown_api_keys",
			"other_configs", "rotation", "cleanup", "clock", "token_url", "iam_url", "api_url")
		if data["ok"] != true || len(warnings) != 0 || len(data["warnings"].([]string)) != 0 || !slices.Equal(data["unknown"].([]string), []string{"rights"}) {
			t.Errorf("found %v, with warnings %q", data, warnings)
		}
		requireFinding(t, data, "api_key", resultOK, "ApiKey-", `named "simulated"`)
		requireFinding(t, data, "identity", resultOK, "IBMid-5500000000 of account 0000", "the first rotation binds")
		requireFinding(t, data, "api_key_count", resultOK, "1 API key of 20")
		requireFinding(t, data, "rights", resultUnknown, "only a rotation can tell")
		m.rotate("us-south")
		m.waitForCleanup()
		data, _ = m.checkUnchanged("us-south")
		if data["ok"] != true {
			t.Errorf("after a rotation found %v", data)
		}
		requireFinding(t, data, "identity", resultOK, "which the config is bound to")
		requireFinding(t, data, "rights", resultUnknown, "when the present key was made")
	})
}

// TestConfigCheck_states has a check of each state that is not well say what it is.
func TestConfigCheck_states(t *testing.T) {
	type found struct {
		field  string
		result result
		parts  []string
	}
	for name, c := range map[string]struct {
		spoil func(m *mount)
		want  []found
		// also are the other fields that are errors then.
		also []string
	}{
		"a key that its issuer does not know": {
			spoil: func(m *mount) { m.sim.RevokeKey(testKey) },
			want:  []found{{"api_key", resultError, []string{"does not know the API key", "create one in IBM Cloud"}}},
		},
		"a disabled key": {
			spoil: func(m *mount) { m.sim.DisableKey(testKey) },
			want:  []found{{"api_key", resultError, []string{"disabled", "enable it"}}},
		},
		"a locked key": {
			spoil: func(m *mount) { m.sim.LockKey(testKey) },
			want:  []found{{"api_key", resultError, []string{"locked", "unlock it"}}},
		},
		"a key that expires soon": {
			spoil: func(m *mount) { m.sim.AddLimitedKey(testKey, apicsim.KeyOptions{Life: 72 * time.Hour}) },
			want:  []found{{"api_key_expiry", resultWarning, []string{"expires at 2000-01-04T", "set rotation_period"}}, {"api_key", resultOK, nil}},
		},
		"a key that expired": {
			spoil: func(m *mount) {
				c := m.storedConfigOf("us-south")
				current := *c.Keys.Current
				current.ExpiresAt = time.Now().Add(-time.Hour)
				c.Keys.Current = &current
				m.putConfig("us-south", c)
				m.restart()
				m.begin()
				m.sim.RevokeKey(testKey)
			},
			want: []found{{"api_key_expiry", resultError, []string{"expired at 1999-12-31T", "another api_key"}}},
			also: []string{"api_key", "token"},
		},
		"an identity with twenty keys": {
			spoil: func(m *mount) {
				for range 19 {
					m.newKey()
				}
			},
			want: []found{{"api_key_count", resultWarning, []string{"has 20 API keys", "delete those that nobody uses"}}},
		},
		"an identity with three pages of keys": {
			spoil: func(m *mount) {
				for range 44 {
					m.newKey()
				}
			},
			want: []found{{"api_key_count", resultWarning, []string{"has 45 API keys"}}},
		},
		"a key of another identity than is bound": {
			spoil: func(m *mount) {
				m.rotate("us-south")
				m.waitForCleanup()
				m.sim.AddLimitedKey(m.storedConfigOf("us-south").APIKey, apicsim.KeyOptions{IAMID: "IBMid-else"})
			},
			want: []found{{"identity", resultError, []string{"IBMid-else of account", "bound to IBMid-5500000000"}}},
		},
		"a key of another account than is bound": {
			spoil: func(m *mount) {
				m.rotate("us-south")
				m.waitForCleanup()
				m.sim.AddLimitedKey(m.storedConfigOf("us-south").APIKey, apicsim.KeyOptions{AccountID: "account-else"})
			},
			want: []found{{"identity", resultError, []string{"of account account-else"}}},
		},
		"a clock that is behind": {
			spoil: func(m *mount) { m.sim.SetClockSkew(10 * time.Minute) },
			want:  []found{{"clock", resultWarning, []string{"behind the issuer's", "set the clock"}}},
		},
		"a clock that is ahead": {
			spoil: func(m *mount) { m.sim.SetClockSkew(-10 * time.Minute) },
			want:  []found{{"clock", resultWarning, []string{"10m0s ahead of the issuer's"}}},
		},
		"a token_url whose host does not resolve": {
			spoil: func(m *mount) {
				m.backend.transports.DialContext = func(context.Context, string, string) (net.Conn, error) {
					return nil, &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}
				}
			},
			want: []found{{"token_url", resultError, []string{"has a host name that does not resolve", "check token_url"}}, {"clock", resultUnknown, nil}},
			also: []string{"iam_url", "api_key"},
		},
		"an api_url whose host does not resolve": {
			spoil: func(m *mount) {
				m.backend.transports.LookupHost = func(context.Context, string) ([]string, error) {
					return nil, &net.DNSError{IsNotFound: true}
				}
			},
			want: []found{{"api_url", resultError, []string{"has a host name that does not resolve", "check api_url"}}},
		},
		"an api_url whose host a proxy resolves": {
			spoil: func(m *mount) {
				m.must(logical.UpdateOperation, "endpoints/us-south", map[string]any{"api_url": "https://api.example"})
				m.backend.transports.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.example"})
				m.backend.transports.LookupHost = func(context.Context, string) ([]string, error) {
					m.Error("the name was looked up")
					return nil, nil
				}
			},
			want: []found{{"api_url", resultUnknown, []string{"because Vault's proxy resolves it"}}},
		},
		"a token service that is down": {
			spoil: func(m *mount) {
				m.restart()
				m.begin()
				m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503})
			},
			want: []found{{"token", resultError, []string{"failed with HTTP 503"}}, {"api_key", resultError, []string{"failed with HTTP 503"}}},
		},
		"an identity that may not read its keys": {
			spoil: func(m *mount) {
				m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallAny, Kind: apicsim.KindStatus, Status: 403})
			},
			want: []found{{"api_key", resultError, []string{"does not let the key's identity read the details", "HTTP 403", "Operator"}}, {"rights", resultError, []string{"may not even read"}}},
		},
		"an identity that may not list its keys": {
			spoil: func(m *mount) {
				m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallList, Kind: apicsim.KindStatus, Status: 403})
			},
			want: []found{{"api_key", resultOK, nil}, {"api_key_count", resultError, []string{"list its API keys"}}, {"rights", resultError, nil}},
		},
		"a key that another config holds": {
			spoil: func(m *mount) { m.writeConfig("eu-de", nil) },
			want:  []found{{"other_configs", resultError, []string{`config "eu-de" holds the same API key`, "a key of its own"}}},
		},
		"a key that the record does not know": {
			spoil: func(m *mount) {
				uid := m.storedConfigOf("us-south").Keys.UID
				m.sim.AddLimitedKey(testKey+"-stranger", apicsim.KeyOptions{Name: "vault-apic-" + uid + "-token-us-south"})
			},
			want: []found{{"unknown_api_keys", resultError, []string{"1 key made for this config that it does not know (ApiKey-", "delete them"}}},
		},
		"a replaced key in its grace period": {
			spoil: func(m *mount) {
				m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "1h"})
				time.Sleep(time.Minute)
			},
			want: []found{{"cleanup", resultOK, []string{"1 replaced key is to be deleted, the first after 2000-"}}, {"unknown_api_keys", resultOK, nil}},
		},
		"a replaced key that cannot be deleted": {
			spoil: func(m *mount) {
				m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallDelete, Kind: apicsim.KindStatus, Status: 403})
				m.rotate("us-south")
				time.Sleep(5 * time.Minute)
			},
			want: []found{{"cleanup", resultWarning, []string{"could not be", "delete the API key", "status/us-south"}}},
		},
		"a rotation that failed": {
			spoil: func(m *mount) {
				m.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallCreate, Kind: apicsim.KindStatus, Status: 403})
				m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
			},
			want: []found{{"rotation", resultError, []string{"create an API key", "HTTP 403"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				c.spoil(m)
				data, warnings := m.checkUnchanged("us-south")
				wrong := slices.Clone(c.also)
				for _, want := range c.want {
					requireFinding(t, data, want.field, want.result, want.parts...)
					if want.result == resultError {
						wrong = append(wrong, want.field)
					}
				}
				slices.Sort(wrong)
				errors := slices.Sorted(slices.Values(data["errors"].([]string)))
				if !slices.Equal(errors, wrong) || data["ok"] != (len(wrong) == 0) || len(warnings) != len(wrong) {
					t.Errorf("errors are %q, want %q; ok is %v; warnings are %q", errors, wrong, data["ok"], warnings)
				}
			})
		})
	}
}

// TestConfigCheck_certificates checks over TLS.
func TestConfigCheck_certificates(t *testing.T) {
	soon := time.Now().Add(5 * 24 * time.Hour).UTC().Truncate(time.Second)
	for name, c := range map[string]struct {
		end   time.Time
		trust bool
		want  result
		parts []string
	}{
		"one that ends in five days": {soon, true, resultWarning, []string{"expires at " + soon.Format(time.RFC3339), "endpoints/<name>"}},
		"one that ends late":         {time.Now().AddDate(1, 0, 0), true, resultOK, []string{"expires at "}},
		"one that is not trusted":    {time.Now().AddDate(1, 0, 0), false, resultError, []string{"not trusted; check ca_cert"}},
		"one that has ended":         {time.Now().Add(-time.Hour), true, resultError, []string{"expired at"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			secure, err := apicsim.StartTLSUntil(m.sim, c.end)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(secure.Close)
			data := map[string]any{"token_url": secure.URL() + "/apikey", "iam_url": secure.URL(), "verify": false}
			if c.trust {
				data["ca_cert"] = secure.CACertPEM()
			}
			m.writeConfig("us-south", data)
			found, _ := m.check("us-south")
			for _, field := range []string{"token_url_certificate", "iam_url_certificate"} {
				requireFinding(t, found, field, c.want, c.parts...)
			}
			if found["ok"] != (c.want != resultError) {
				t.Errorf("found %v", found)
			}
		})
	}
}

func TestConfigCheck_ofNoConfigSaysHowToMakeOne(t *testing.T) {
	m := newMount(t)
	for _, name := range []string{"us-south", "a/b"} {
		status, text := m.failure(logical.ReadOperation, "config/"+name+"/check", nil)
		if status != 400 || !strings.Contains(text, "there is no config") {
			t.Errorf("%s is answered %d %s", name, status, text)
		}
	}
}

// TestConfigCheck_usesUpNoPlatformKey checks configs whose keys may work once, with a
// current token and without.
func TestConfigCheck_usesUpNoPlatformKey(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{Life: 30 * 24 * time.Hour}, func(m *mount) {
		exchanges := m.sim.Counts().Exchanges
		data, _ := m.checkUnchanged("saas")
		if data["ok"] != true {
			t.Errorf("found %v", data)
		}
		requireFinding(t, data, "token", resultOK, "readers share a token that lives until 2000-01-01T08:00:00Z")
		requireFinding(t, data, "api_key", resultOK, "named \"vault-apic-")
		requireFinding(t, data, "api_key_count", resultOK, "the identity has 2 API keys")
		requireFinding(t, data, "rotation", resultOK, "renews itself")
		requireFinding(t, data, "unknown_api_keys", resultOK)
		if data["iam_url"] != nil {
			t.Errorf("iam_url is %v", data["iam_url"])
		}
		m.sim.AddLimitedKey(testKey+"-own", apicsim.KeyOptions{SingleUse: true, Life: time.Hour})
		m.must(logical.CreateOperation, "config/own", m.configData(map[string]any{"api_key": testKey + "-own", "token_service": "platform", "renew": false, "verify": false}))
		data, _ = m.checkUnchanged("own")
		requireFinding(t, data, "token", resultUnknown, "may work only once", "read token/own to try it")
		requireFinding(t, data, "api_key", resultUnknown, "may work only once")
		if got := m.sim.Counts().Exchanges; got != exchanges {
			t.Errorf("%d exchanges were made", got-exchanges)
		}
		m.readToken("own") // The key is as good as before.
	})
}

// TestConfigCheck_ofARenewalBetweenTwoKeys has the key be at its end that the token was got with.
func TestConfigCheck_ofARenewalBetweenTwoKeys(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		time.Sleep(time.Hour)
		data, _ := m.checkUnchanged("saas")
		if data["ok"] != true {
			t.Errorf("found %v", data)
		}
		requireFinding(t, data, "api_key_expiry", resultOK, "the current token")
		time.Sleep(time.Minute) // The check's result is no longer kept.
		m.sim.InjectKeyFault(apicsim.KeyFault{Kind: apicsim.KindStatus, Status: http.StatusUnauthorized})
		m.failure(logical.PatchOperation, "config/saas", map[string]any{"verify": true})
		time.Sleep(time.Second) // The refused token is backed off from.
		data, _ = m.check("saas")
		requireFinding(t, data, "api_key", resultError)
		if text, found := data["api_key_expiry"].(string); !found || strings.HasPrefix(text, string(resultOK)) {
			t.Errorf("with a token that is refused, api_key_expiry is %q", text)
		}
	})
}

// TestConfigCheck_ofARefusedTokenBacksOff has somebody check for ten minutes, as often as a check
// is made, a config whose token its issuer refuses. Renewals go on.
func TestConfigCheck_ofARefusedTokenBacksOff(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		m.sim.InjectKeyFault(apicsim.KeyFault{Kind: apicsim.KindStatus, Status: http.StatusUnauthorized})
		before := m.sim.Counts().KeyCalls
		for range 50 {
			m.check("saas")
			time.Sleep(12 * time.Second)
		}
		// At first after 10, 20 and 40 seconds, and then after a minute each time. A check makes two calls.
		if got := m.sim.Counts().KeyCalls - before; got < 2*10 || got > 2*15 {
			t.Errorf("the token was sent %d times", got)
		}
		m.sim.ClearKeyFaults()
		m.must(logical.UpdateOperation, "token/saas", nil)
		time.Sleep(time.Minute)
		m.check("saas")
		m.sim.InjectKeyFault(apicsim.KeyFault{Kind: apicsim.KindStatus, Status: http.StatusUnauthorized})
		for range 2 {
			time.Sleep(12 * time.Second)
			before = m.sim.Counts().KeyCalls
			m.check("saas")
		}
		if m.sim.Counts().KeyCalls == before {
			t.Error("after a success a refusal is backed off from as long as before")
		}
	})
}

// TestConfigCheck_ofARenewalThatIsAtItsEnd has everything end that gets tokens.
func TestConfigCheck_ofARenewalThatIsAtItsEnd(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{Refuse: http.StatusForbidden}, func(m *mount) {
		time.Sleep(9 * time.Hour)
		m.restart()
		data, _ := m.check("saas")
		requireFinding(t, data, "token", resultError, "there is no token any more", "another api_key")
		requireFinding(t, data, "api_key", resultUnknown, "no current token")
	})
}

// TestConfigCheck_issuerThatNamesAKeyByAValue has an issuer name a key by the value of a
// replaced one that still works.
func TestConfigCheck_issuerThatNamesAKeyByAValue(t *testing.T) {
	for name, c := range map[string]struct {
		path, answer string
		field        string
		parts        []string
	}{
		"the key's id":   {"/v1/apikeys/details", `{"id":"KEY","name":"n","iam_id":"IDENTITY","account_id":"ACCOUNT"}`, "api_key", []string{"contains part of a secret"}},
		"the key's name": {"/v1/apikeys/details", `{"id":"ApiKey-1","name":"KEY","iam_id":"IDENTITY","account_id":"ACCOUNT"}`, "api_key", []string{"contains part of a secret"}},
		"its identity":   {"/v1/apikeys/details", `{"id":"ApiKey-1","name":"n","iam_id":"KEY","account_id":"ACCOUNT"}`, "api_key", []string{"contains part of a secret"}},
		"another key's id": {
			"/v1/apikeys", `{"apikeys":[{"id":"KEY","name":"vault-apic-UID-x","iam_id":"IDENTITY","account_id":"ACCOUNT"}]}`, "unknown_api_keys", []string{"1 key made for this config", "their ids are left out"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, answer := newScriptedMount(t, func(r *http.Request) bool { return r.URL.Path == c.path })
				keys := m.storedConfigOf("us-south").Keys
				bound := keys.Current.Binding
				answer.Store(strings.NewReplacer("KEY", testKey, "IDENTITY", bound.Identity, "ACCOUNT", bound.AccountID, "UID", keys.UID).Replace(c.answer))
				data, _ := m.check("us-south")
				requireFinding(t, data, c.field, resultError, c.parts...)
			})
		})
	}
}

// TestChecker_withholdsASecret has a finding hold one, which none is known to.
func TestChecker_withholdsASecret(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	e, err := m.backend.configs.Get(t.Context(), "us-south")
	if err != nil {
		t.Fatal(err)
	}
	token := m.readToken("us-south")["token"].(string)
	for _, secret := range []string{testKey, token} {
		for _, f := range m.backend.newChecker("us-south", e).complete([]finding{{checkClock, resultOK, "it is " + secret, ""}}) {
			if strings.Contains(f.String(), secret) || f.name == checkClock && f.result != resultError {
				t.Errorf("%s is told", f.name)
			}
		}
	}
}

// TestConfigCheck_whoseTokenItIs does not say that readers share a token where they do not.
func TestConfigCheck_whoseTokenItIs(t *testing.T) {
	for mode, want := range map[string]string{"true": "readers share", "false": "each read", "entity": "each entity"} {
		t.Run(mode, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", map[string]any{"cache": mode})
				data, _ := m.check("us-south")
				if text := data["token"].(string); !strings.Contains(text, want) {
					t.Errorf("token is %q", text)
				}
			})
		})
	}
}
