// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// script is an issuer that answers the key API with what a test writes, and notes
// what it was asked.
type script struct {
	answers func(n int, r *http.Request) (status int, body string)
	asked   []string
	// transactionID is what the answers call the requests.
	transactionID string
	// key is what the session is opened with, testKey if it is empty.
	key string
}

// play logs in at a simulation and runs a test whose key API is scripted.
func (s *script) play(t *testing.T, test func(*testing.T, rotation.Session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		key := cmp.Or(s.key, testKey)
		sim := newSim(t)
		sim.AddKey(key)
		mux := http.NewServeMux()
		mux.Handle("/identity/token", sim)
		mux.Handle("/", s.serve(func(r *http.Request) bool {
			return (r.URL.Path == "/v1/apikeys/details") == (r.Header.Get("IAM-ApiKey") == key)
		}, t))
		issuer, _ := newIssuer(t, mux, 0)
		session, err := issuer.Login(t.Context(), rotation.Binding{Issuer: "http://127.0.0.1"}, rotation.Secret(key))
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		test(t, session)
	})
}

// serve answers what the script says. Requests have a JWT for a bearer, and beside it
// the credentials that are right.
func (s *script) serve(right func(*http.Request) bool, t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.asked = append(s.asked, r.Method+" "+r.RequestURI+" "+r.Header.Get("Content-Type")+" "+string(body))
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer eyJ") || !right(r) {
			t.Errorf("%s carries other credentials", r.RequestURI)
		}
		status, text := s.answers(len(s.asked), r)
		w.Header().Set("Transaction-Id", s.transactionID)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func always(status int, body string) *script {
	return &script{answers: func(int, *http.Request) (int, string) { return status, body }}
}

var keyN = rotation.NewKey{Name: "n", Of: rotation.Binding{Identity: "i", AccountID: "a"}}

func TestIAMSession_requestsToTheLetter(t *testing.T) {
	s := always(http.StatusTeapot, "")
	s.play(t, func(t *testing.T, session rotation.Session) {
		_, _ = session.Details(t.Context())
		like := rotation.Details{Description: "d", ActionWhenLeaked: "delete", SupportSessions: true}
		_, _, _ = session.Create(t.Context(), rotation.NewKey{Name: "n", Of: keyN.Of, Like: like})
		_, _, _ = session.Create(t.Context(), rotation.NewKey{Name: "n", Of: rotation.Binding{Identity: "i"}})
		_, _ = session.Find(t.Context(), "n", rotation.Binding{Identity: "i&d", AccountID: "a"})
		_, _ = session.Get(t.Context(), "ApiKey-1@x:y")
		_ = session.Disable(t.Context(), "ApiKey-1@x:y")
		_ = session.Delete(t.Context(), "ApiKey-1@x:y")
	})
	want := []string{
		"GET /v1/apikeys/details  ",
		`POST /v1/apikeys application/json {"name":"n","description":"d","iam_id":"i","account_id":"a","action_when_leaked":"delete","support_sessions":true}`,
		`POST /v1/apikeys application/json {"name":"n","iam_id":"i"}`,
		"GET /v1/apikeys?account_id=a&iam_id=i%26d&pagesize=20  ",
		"GET /v1/apikeys/ApiKey-1@x:y  ",
		"POST /v1/apikeys/ApiKey-1@x:y/disable  ",
		"DELETE /v1/apikeys/ApiKey-1@x:y  ",
	}
	if !slices.Equal(s.asked, want) {
		t.Fatalf("asked %q", s.asked)
	}
}

func keyJSON(name, iamID, accountID, value string) string {
	body, _ := json.Marshal(map[string]any{"id": "ApiKey-1", "name": name, "iam_id": iamID, "account_id": accountID, "apikey": value})
	return string(body)
}

// TestIAMCreate_returnsAnInvalidKeyToo: the caller has to know of a key to delete it,
// even if something is wrong with it.
func TestIAMCreate_returnsAnInvalidKeyToo(t *testing.T) {
	for name, c := range map[string]struct {
		body, value, says string
	}{
		"the key asked for":           {keyJSON("n", "i", "a", "v"), "v", ""},
		"another name":                {keyJSON("m", "i", "a", "v"), "v", ""},
		"another identity":            {keyJSON("n", "j", "a", "v"), "v", "another identity or account"},
		"another account":             {keyJSON("n", "i", "b", "v"), "v", "another identity or account"},
		"no identity":                 {keyJSON("n", "", "a", "v"), "v", "can't be one"},
		"no value":                    {keyJSON("n", "i", "a", ""), "", "without the key's value"},
		"a value that can't be one":   {keyJSON("n", "i", "a", "v w"), "", "value can't be one"},
		"a field of another shape":    {`{"locked":"no",` + keyJSON("n", "i", "a", "v")[1:], "v", "another shape"},
		"a value of another shape":    {`{"id":"ApiKey-1","name":"n","iam_id":"i","account_id":"a","apikey":{}}`, "", "another shape"},
		"an identity with its secret": {keyJSON("n", "i-secret-v", "a", "i-secret-v"), "i-secret-v", "can't be one"},
	} {
		t.Run(name, func(t *testing.T) {
			always(http.StatusCreated, c.body).play(t, func(t *testing.T, session rotation.Session) {
				requireTold(t, session, keyN, "ApiKey-1", c.value, c.says)
			})
		})
	}
}

func TestIAMCreate_aKeyWithoutAnIDIsNone(t *testing.T) {
	whole := keyJSON("n", "i", "a", "v")
	for name, body := range map[string]string{
		"half an answer": whole[:20], "no id": strings.Replace(whole, "ApiKey-1", "", 1), "a secret for an id": strings.Replace(whole, "ApiKey-1", "v", 1),
	} {
		t.Run(name, func(t *testing.T) {
			always(http.StatusCreated, body).play(t, func(t *testing.T, session rotation.Session) {
				requireNoKey(t, session, keyN)
			})
		})
	}
}

func TestIAMSession_itsKeyIsNoRequestID(t *testing.T) {
	const value = "0Kq3-canary-present-Zz9"
	for _, status := range []int{200, 403, 500} {
		s := always(status, "{}")
		s.transactionID, s.key = value, value
		s.play(t, func(t *testing.T, session rotation.Session) {
			_, err := session.Details(t.Context())
			if failed := failure(t, err); failed.RequestID != "" || strings.Contains(err.Error(), value) {
				t.Error("the error tells the key")
			}
		})
	}
}

// TestIAMCreate_newKeyIsNoRequestID is about the one secret that no request held.
func TestIAMCreate_newKeyIsNoRequestID(t *testing.T) {
	const value = "0Kq3-canary-fresh-Zz9"
	s := always(http.StatusCreated, keyJSON("n", "j", "a", value))
	s.transactionID = value
	s.play(t, func(t *testing.T, session rotation.Session) {
		_, _, err := session.Create(t.Context(), keyN)
		if failed := failure(t, err); failed.RequestID != "" || strings.Contains(err.Error(), value) {
			t.Error("the error tells the new key")
		}
	})
}

func TestIAMGet_anotherKeyIsRefused(t *testing.T) {
	always(http.StatusOK, keyJSON("n", "i", "a", "")).play(t, func(t *testing.T, session rotation.Session) {
		if _, err := session.Get(t.Context(), "ApiKey-1"); err != nil {
			t.Fatal(err)
		}
		// The address of the one that asks for a key by its value has the form of an id.
		for _, id := range []string{"ApiKey-2", "apikey-1"} {
			if _, err := session.Get(t.Context(), id); err == nil || !strings.Contains(err.Error(), "another key") {
				t.Errorf("%s: the error is %v", id, err)
			}
		}
	})
}

func TestIAM404_countsInIAMsOwnWordsAlone(t *testing.T) {
	for body, gone := range map[string]bool{
		`{"trace":"t","status_code":404,"errors":[{"code":"not_found","message_code":"BXNIM0102E"}]}`: true,
		`{"errors":[{"code":"not_found"}]}`: true,
		`{"errorCode":"BXNIM0102E"}`:        true,
		`<html>404</html>`:                  false,
		`{"message":"not found"}`:           false,
		``:                                  false,
	} {
		t.Run(body, func(t *testing.T) {
			always(http.StatusNotFound, body).play(t, func(t *testing.T, session rotation.Session) {
				requireGone(t, session, keyN, "ApiKey-1", gone, session.Disable(t.Context(), "ApiKey-1"))
			})
		})
	}
}

func TestIAMFind_nextPageStaysOnThisHost(t *testing.T) {
	s := &script{answers: func(n int, _ *http.Request) (int, string) {
		if n == 1 {
			return http.StatusOK, `{"apikeys":[],"next":"https://elsewhere.example/stolen?pagetoken=p%261&iam_id=j"}`
		}
		return http.StatusOK, `{"apikeys":[` + keyJSON("n", "i", "a", "") + `]}`
	}}
	s.play(t, func(t *testing.T, session rotation.Session) {
		found, err := session.Find(t.Context(), "n", keyN.Of)
		if err != nil || len(found) != 1 {
			t.Fatalf("found %+v, error %v", found, err)
		}
	})
	if want := "GET /v1/apikeys?account_id=a&iam_id=i&pagesize=20&pagetoken=p%261  "; s.asked[1] != want {
		t.Fatalf("asked %q", s.asked[1])
	}
}

func TestIAMFind_moreKeysThanThereCanBe(t *testing.T) {
	page := strings.TrimSuffix(strings.Repeat(keyJSON("n", "i", "a", "")+",", 20), ",")
	s := &script{answers: func(n int, _ *http.Request) (int, string) {
		return http.StatusOK, `{"apikeys":[` + page + `],"next":"?pagetoken=` + strconv.Itoa(n) + `"}`
	}}
	s.play(t, func(t *testing.T, session rotation.Session) {
		_, err := session.Find(t.Context(), "n", keyN.Of)
		if failure(t, err); len(s.asked) != 6 || !strings.Contains(err.Error(), "more API keys than an identity can have") {
			t.Fatalf("%d pages, error %v", len(s.asked), err)
		}
	})
}

func TestIAMFind_slowPagesHaveAnEnd(t *testing.T) {
	s := &script{answers: func(n int, _ *http.Request) (int, string) {
		time.Sleep(900 * time.Millisecond)
		return http.StatusOK, `{"apikeys":[],"next":"?pagetoken=` + strconv.Itoa(n) + `"}`
	}}
	s.play(t, func(t *testing.T, session rotation.Session) {
		began := time.Now()
		_, err := session.Find(t.Context(), "n", keyN.Of)
		failure(t, err)
		if took := time.Since(began); took > 41*time.Second || !strings.Contains(err.Error(), "did not answer in time") {
			t.Errorf("it took %s, error %v", took, err)
		}
		time.Sleep(time.Second) // The last answer is still under way.
	})
}

func TestIAMFind_endlessListIsGivenUp(t *testing.T) {
	s := &script{answers: func(n int, _ *http.Request) (int, string) {
		return http.StatusOK, `{"apikeys":[],"next":"?pagetoken=` + strconv.Itoa(n) + `"}`
	}}
	s.play(t, func(t *testing.T, session rotation.Session) {
		_, err := session.Find(t.Context(), "n", keyN.Of)
		if failure(t, err); len(s.asked) != 50 || !strings.Contains(err.Error(), "does not end") {
			t.Fatalf("%d pages: %s", len(s.asked), err)
		}
	})
}

// TestIAMFind_ignoresKeysOfOtherIdentities has IAM list such a key.
func TestIAMFind_ignoresKeysOfOtherIdentities(t *testing.T) {
	body := `{"apikeys":[` + keyJSON("n", "j", "a", "") + `,` + keyJSON("n", "i", "b", "") + `]}`
	always(http.StatusOK, body).play(t, func(t *testing.T, session rotation.Session) {
		if found, err := session.Find(t.Context(), "n", keyN.Of); err != nil || len(found) != 0 {
			t.Fatalf("found %+v, error %v", found, err)
		}
	})
}

func TestIAMGet_hidesANameThatIsTheValue(t *testing.T) {
	always(http.StatusOK, keyJSON("my "+testKey, "i", "a", testKey)).play(t, func(t *testing.T, session rotation.Session) {
		key, err := session.Details(t.Context())
		if err != nil || key.Name != "" {
			t.Fatalf("error %v", err)
		}
		requireSilent(t, fmt.Sprintf("%+v", key))
	})
}
