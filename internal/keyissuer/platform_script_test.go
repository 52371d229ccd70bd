// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// userToken is a JWT whose sub is u.
const userToken = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1In0.AAAA"

// playPlatform runs a test with a session whose platform is scripted.
func (s *script) playPlatform(t *testing.T, test func(*testing.T, rotation.Session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		issuer, _ := newPlatform(t, s.serve(func(*http.Request) bool { return true }, t), 0)
		session, err := issuer.Login(t.Context(), rotation.Binding{Issuer: "http://127.0.0.1/api"}, userToken)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		test(t, session)
	})
}

var ofU = rotation.NewKey{Name: "n", Of: rotation.Binding{Identity: "u"}}

func TestPlatformSession_requestsToTheLetter(t *testing.T) {
	s := always(http.StatusTeapot, "")
	s.playPlatform(t, func(t *testing.T, session rotation.Session) {
		_, _, _ = session.Create(t.Context(), rotation.NewKey{
			Name: "vault-apic-Über_" + strings.Repeat("x", 128), Of: ofU.Of, TTL: time.Minute + 1,
			Like: rotation.Details{Description: "d", ActionWhenLeaked: "delete", SupportSessions: true},
		})
		_, _, _ = session.Create(t.Context(), rotation.NewKey{Name: "n"})
		_, _ = session.Find(t.Context(), "n", ofU.Of)
		_, _ = session.Get(t.Context(), "id-1@x:y")
		_ = session.Delete(t.Context(), "id-1@x:y")
	})
	long := strings.Repeat("x", 128)
	want := []string{
		`POST /api/cloud/api-keys application/json {"client_type":"toolkit","description":"d","name":"vault-apic--ber-` + long[:112] + `","title":"vault-apic-Über_` + long + `","ttl":61}`,
		`POST /api/cloud/api-keys application/json {"client_type":"toolkit","description":"Made by HashiCorp Vault, which replaces and deletes it: do not use it elsewhere","name":"n","title":"n"}`,
		"GET /api/cloud/api-keys?fields=id%2Cname%2Ccreated_at%2Ctoken_exp%2Ctoken_jti&limit=20&offset=0  ",
		"GET /api/cloud/api-keys/id-1@x:y  ",
		"DELETE /api/cloud/api-keys/id-1@x:y  ",
	}
	if !slices.Equal(s.asked, want) {
		t.Fatalf("asked %q", s.asked)
	}
}

// TestPlatformCreate_returnsAnInvalidKeyToo: the caller has to know of a key to delete
// it, even if something is wrong with it.
func TestPlatformCreate_returnsAnInvalidKeyToo(t *testing.T) {
	for name, c := range map[string]struct{ body, value, says string }{
		"the key asked for":         {`{"id":"k1","name":"n","api_key":"v"}`, "v", ""},
		"no value":                  {`{"id":"k1","name":"n"}`, "", "without the key's value"},
		"a value that can't be one": {`{"id":"k1","name":"n","api_key":"v w"}`, "", "value can't be one"},
		"a field of another shape":  {`{"name":7,"id":"k1","api_key":"v"}`, "v", "another shape"},
		"a value of another shape":  {`{"id":"k1","name":"n","api_key":{}}`, "", "another shape"},
		"an end that is none":       {`{"id":"k1","name":"n","api_key":"v","token_exp":"soon"}`, "v", ""},
	} {
		t.Run(name, func(t *testing.T) {
			always(http.StatusCreated, c.body).playPlatform(t, func(t *testing.T, session rotation.Session) {
				key := requireTold(t, session, ofU, "k1", c.value, c.says)
				if key.Identity != "u" || !key.ExpiresAt.IsZero() {
					t.Errorf("the key is %+v", key)
				}
			})
		})
	}
}

func TestPlatformCreate_aKeyWithoutAnIDIsNone(t *testing.T) {
	for name, body := range map[string]string{
		"half an answer": `{"id":"k1","api_`, "no id": `{"name":"n","api_key":"v"}`, "the value for an id": `{"id":"v","name":"n","api_key":"v"}`,
	} {
		t.Run(name, func(t *testing.T) {
			always(http.StatusCreated, body).playPlatform(t, func(t *testing.T, session rotation.Session) {
				requireNoKey(t, session, ofU)
			})
		})
	}
}

// TestPlatformGet_tellsNoValue is about what get answers beside the details.
func TestPlatformGet_tellsNoValue(t *testing.T) {
	const value = "0Kq3-canary-again-Zz9"
	for body, wrong := range map[string]bool{
		`{"id":"k1","name":"` + value + `","description":"of ` + value + `","api_key":"` + value + `","id_token":"eyJ"}`: false,
		`{"id":"` + value + `","name":"n","api_key":"` + value + `"}`:                                                    true,
		`{"id":"k2","name":"n","api_key":"` + value + `"}`:                                                               true,
		`{"id":"k1","name":7,"api_key":"` + value + `"}`:                                                                 true,
	} {
		s := always(http.StatusOK, body)
		s.transactionID = value
		s.playPlatform(t, func(t *testing.T, session rotation.Session) {
			key, err := session.Get(t.Context(), "k1")
			if (err != nil) != wrong || key.Name != "" || key.Description != "" {
				t.Errorf("the key is %+v, error %v", key, err)
			}
			if err != nil && (strings.Contains(err.Error(), value) || failure(t, err).RequestID != "") {
				t.Error("the error tells the value")
			}
		})
	}
}

func TestPlatform404_countsInThePlatformsOwnWordsAlone(t *testing.T) {
	for body, gone := range map[string]bool{
		`{"status":404,"message":["Not found"],"errors":["Not found"]}`: true,
		`{"status":404,"errors":["Not found"]}`:                         true,
		`{"status":404,"error":"Not Found","path":"/api"}`:              false,
		`{"status":400,"message":["Not found"]}`:                        false,
		`{"message":["Not found"]}`:                                     false,
		`<html>404</html>`:                                              false,
		``:                                                              false,
	} {
		t.Run(body, func(t *testing.T) {
			always(http.StatusNotFound, body).playPlatform(t, func(t *testing.T, session rotation.Session) {
				requireGone(t, session, ofU, "k1", gone)
			})
		})
	}
}

func TestPlatformFind_aListThatDoesNotAddUp(t *testing.T) {
	for name, c := range map[string]struct {
		page  func(n int) string
		calls int
		says  string
	}{
		"no end": {func(n int) string {
			return `{"total_results":` + strconv.Itoa(n+1) + `,"results":[{"id":"k1","name":"n"}]}`
		}, 50, "does not end"},
		"an early end": {func(int) string { return `{"total_results":2,"results":[]}` }, 1, "ends too early"},
		"no total":     {func(int) string { return `{"results":[]}` }, 1, "without a list"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{answers: func(n int, _ *http.Request) (int, string) { return http.StatusOK, c.page(n) }}
			s.playPlatform(t, func(t *testing.T, session rotation.Session) {
				found, err := session.Find(t.Context(), "n", ofU.Of)
				if failure(t, err); found != nil || len(s.asked) != c.calls || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%d calls: %s", len(s.asked), err)
				}
			})
		})
	}
}
