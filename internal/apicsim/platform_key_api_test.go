// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const platformKeysPath = "/api/cloud/api-keys"

func platformBearerOf(t *testing.T, s *Sim, key string) string {
	t.Helper()
	token, _ := decodeBody(t, exchangeAt(s, "platform", key, nil))["access_token"].(string)
	return token
}

func newPlatformKeyBody(name string) string {
	return fmt.Sprintf(`{"client_type":"toolkit","description":"d","title":"T","name":%q,"ttl":86400}`, name)
}

func createAtPlatform(s *Sim, bearer, name string) *httptest.ResponseRecorder {
	return callKeys(s, bearer, http.MethodPost, platformKeysPath, newPlatformKeyBody(name))
}

func requirePlatformError(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	texts, _ := decodeBody(t, w)["message"].([]any)
	if w.Code != status || decodeBody(t, w)["status"] != float64(status) || len(texts) != 1 {
		t.Errorf("answered %d, want the platform's error %d", w.Code, status)
	}
}

func TestPlatformKeyAPI_createReadUseDelete(t *testing.T) {
	s := newTokenSim(t)
	bearer := platformBearerOf(t, s, testKey)
	w := createAtPlatform(s, bearer, "successor")
	created := decodeBody(t, w)
	value, _ := created["api_key"].(string)
	id, _ := created["id"].(string)
	if w.Code != http.StatusCreated || created["name"] != "successor" || created["title"] != "T" || created["description"] != "d" || value == "" {
		t.Fatalf("answered %d", w.Code)
	}
	if url, _ := created["url"].(string); !strings.HasSuffix(url, platformKeysPath+"/"+id) {
		t.Errorf("the url is %s", url)
	}
	if got := exchangeAt(s, "platform", value, nil).Code; got != http.StatusOK {
		t.Errorf("the new key's status is %d", got)
	}
	for _, called := range []string{id, "successor"} {
		got := decodeBody(t, callKeys(s, bearer, http.MethodGet, platformKeysPath+"/"+called, ""))
		if got["id"] != id || got["api_key"] != value {
			t.Errorf("%s: another key is answered, or one without its value", called)
		}
	}
	if got := callKeys(s, bearer, http.MethodDelete, platformKeysPath+"/successor", "").Code; got != http.StatusNoContent {
		t.Errorf("deletion: status is %d", got)
	}
	requirePlatformError(t, exchangeAt(s, "platform", value, nil), http.StatusUnauthorized)
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		requirePlatformError(t, callKeys(s, bearer, method, platformKeysPath+"/"+id, ""), http.StatusNotFound)
	}
	if got := s.Counts(); got.KeysCreated != 1 || got.KeysDeleted != 1 || got.KeyCalls != 6 {
		t.Errorf("counts are %+v", got)
	}
	if k := s.Keys()[1]; k.Exists() || !k.CreatedByAPI || k.ID != id || k.IAMID != defaultIAMID {
		t.Errorf("the key is %+v", k)
	}
}

func TestPlatformKeyAPI_acceptsOnlyThePlatformsTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		expired := platformBearerOf(t, s, testKey)
		time.Sleep(time.Minute)
		for whose, bearer := range map[string]string{"none": "", "the login service's": issuedToken(t, s), "IAM's": bearerOf(t, s, testKey), "an expired one": expired} {
			t.Log(whose)
			requirePlatformError(t, createAtPlatform(s, bearer, "n"), http.StatusUnauthorized)
			requirePlatformError(t, callKeys(s, bearer, http.MethodGet, platformKeysPath, ""), http.StatusUnauthorized)
			requirePlatformError(t, callKeys(s, bearer, http.MethodGet, platformKeysPath+"/"+s.Keys()[0].ID, ""), http.StatusUnauthorized)
			requirePlatformError(t, callKeys(s, bearer, http.MethodDelete, platformKeysPath+"/"+s.Keys()[0].ID, ""), http.StatusUnauthorized)
		}
		if got := s.Counts(); got.KeysCreated != 0 || got.KeysDeleted != 0 {
			t.Errorf("counts are %+v", got)
		}
		if got := callKeys(s, platformBearerOf(t, s, testKey), http.MethodGet, "/v1/apikeys", "").Code; got != http.StatusUnauthorized {
			t.Errorf("IAM lets the platform's token in: status is %d", got)
		}
	})
}

func TestPlatformKeyAPI_aUserSeesItsOwnKeysAlone(t *testing.T) {
	s := newTokenSim(t)
	s.AddLimitedKey("other-key", KeyOptions{IAMID: "user-2"})
	bearer, other := platformBearerOf(t, s, testKey), platformBearerOf(t, s, "other-key")
	value, _ := decodeBody(t, createAtPlatform(s, bearer, "n"))["api_key"].(string)
	// Any key that a user shows, it is the same one.
	bearer = platformBearerOf(t, s, value)
	if w := createAtPlatform(s, other, "n"); w.Code != http.StatusCreated {
		t.Errorf("another user's key of the same name: answered %d", w.Code)
	}
	requirePlatformError(t, createAtPlatform(s, bearer, "n"), http.StatusConflict)
	for _, id := range []string{s.Keys()[1].ID, s.Keys()[3].ID} {
		requirePlatformError(t, callKeys(s, bearer, http.MethodDelete, platformKeysPath+"/"+id, ""), http.StatusNotFound)
	}
	callKeys(s, bearer, http.MethodDelete, platformKeysPath+"/n", "")
	if got := createAtPlatform(s, bearer, "n").Code; got != http.StatusCreated {
		t.Errorf("a name that was given up: answered %d", got)
	}
}

func TestPlatformKeyAPI_itsKeysAreNoneOfIAMs(t *testing.T) {
	s := newTokenSim(t)
	value, _ := decodeBody(t, createAtPlatform(s, platformBearerOf(t, s, testKey), "of-the-platform"))["api_key"].(string)
	if exchangeAt(s, "iam", value, nil).Code != http.StatusBadRequest || exchangeAt(s, "login", value, nil).Code != http.StatusUnauthorized {
		t.Error("another service accepts the platform's key")
	}
	callKeys(s, bearerOf(t, s, testKey), http.MethodPost, "/v1/apikeys", newKeyBody)
	if names, _ := listAll(t, s, bearerOf(t, s, testKey), 20); strings.Join(names, " ") != "simulated successor" {
		t.Errorf("IAM lists %v", names)
	}
	if w := callKeys(s, platformBearerOf(t, s, testKey), http.MethodGet, platformKeysPath, ""); decodeBody(t, w)["total_results"] != 2.0 || strings.Contains(w.Body.String(), `"successor"`) {
		t.Errorf("the platform lists %s", w.Body)
	}
}

func TestPlatformKeyAPI_invalidRequests(t *testing.T) {
	s := newTokenSim(t)
	bearer := platformBearerOf(t, s, testKey)
	for name, body := range map[string]string{
		"no JSON": "x", "no client_type": `{"description":"d","name":"n"}`, "another client_type": `{"client_type":"ui","description":"d","name":"n"}`,
		"no description": `{"client_type":"toolkit","name":"n"}`, "a name that is no slug": newPlatformKeyBody("A name"), "a name without end": newPlatformKeyBody(strings.Repeat("n", 129)),
		"a life in the past": `{"client_type":"toolkit","description":"d","ttl":-1}`, "a life without end": `{"client_type":"toolkit","description":"d","ttl":9223372036854775807}`,
		"too long": strings.Repeat(" ", maxKeyCallBytes+1),
	} {
		t.Log(name)
		requirePlatformError(t, callKeys(s, bearer, http.MethodPost, platformKeysPath, body), http.StatusBadRequest)
	}
	for _, query := range []string{"limit=0", "limit=x", "limit=", "offset=-1", "offset=x"} {
		requirePlatformError(t, callKeys(s, bearer, http.MethodGet, platformKeysPath+"?"+query, ""), http.StatusBadRequest)
	}
	if got := len(s.Keys()); got != 1 {
		t.Errorf("there are %d keys", got)
	}
	// A name need not be given.
	if got := callKeys(s, bearer, http.MethodPost, platformKeysPath, `{"client_type":"toolkit","description":"d"}`).Code; got != http.StatusCreated {
		t.Errorf("answered %d", got)
	}
}

func TestPlatformKeyAPI_pagesAndFields(t *testing.T) {
	s := newTokenSim(t)
	for _, name := range []string{"b", "c", "d", "e"} {
		s.AddLimitedKey(name, KeyOptions{Name: name})
	}
	bearer := platformBearerOf(t, s, testKey)
	for query, want := range map[string]string{
		"": "simulated b c d e", "limit=2": "simulated b", "limit=2&offset=2": "c d", "limit=2&offset=4": "e", "offset=5": "", "offset=50": "",
	} {
		body := decodeBody(t, callKeys(s, bearer, http.MethodGet, platformKeysPath+"?fields=name,missing&"+query, ""))
		var names []string
		for _, k := range body["results"].([]any) {
			if key := k.(map[string]any); len(key) == 1 {
				names = append(names, key["name"].(string))
			}
		}
		if strings.Join(names, " ") != want || body["total_results"] != 5.0 {
			t.Errorf("%s: listed %v of %v", query, names, body["total_results"])
		}
	}
	if w := callKeys(s, bearer, http.MethodGet, platformKeysPath, ""); strings.Contains(w.Body.String(), "api_key\":\"") {
		t.Error("a list tells values")
	}
}

func TestPlatformKeyAPI_lagsInEachView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		s.SetTokenTTL(time.Hour)
		s.SetLag(Lag{Tokens: 4 * time.Second, List: 3 * time.Second, Get: 2 * time.Second, Delete: time.Second})
		bearer := platformBearerOf(t, s, testKey)
		created := decodeBody(t, createAtPlatform(s, bearer, "n"))
		value, id := created["api_key"].(string), created["id"].(string)
		seen := func() string {
			return fmt.Sprint(callKeys(s, bearer, http.MethodGet, platformKeysPath+"/"+id, "").Code, " ",
				decodeBody(t, callKeys(s, bearer, http.MethodGet, platformKeysPath, ""))["total_results"], " ", exchangeAt(s, "platform", value, nil).Code)
		}
		for _, want := range []string{"404 1 401", "404 1 401", "200 1 401", "200 2 401", "200 2 200"} {
			if got := seen(); got != want {
				t.Errorf("seen %s, want %s", got, want)
			}
			time.Sleep(time.Second)
		}
		callKeys(s, bearer, http.MethodDelete, platformKeysPath+"/"+id, "")
		for n, want := range []string{"200 2 200", "200 2 200", "404 2 200", "404 1 200", "404 1 401"} {
			if got := seen(); got != want {
				t.Errorf("after the deletion, seen %s, want %s", got, want)
			}
			if again := callKeys(s, bearer, http.MethodDelete, platformKeysPath+"/"+id, "").Code; (again == http.StatusNoContent) != (n == 0) {
				t.Errorf("the deletion again: status is %d", again)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestPlatformKeyAPI_faults(t *testing.T) {
	s := newTokenSim(t)
	bearer := platformBearerOf(t, s, testKey)
	for _, after := range []bool{false, true} {
		s.InjectKeyFault(KeyFault{Call: CallCreate, After: after, Kind: KindStatus, Status: 500, Times: 1})
		w := createAtPlatform(s, bearer, "n")
		if w.Code != 500 || decodeBody(t, w)["status"] != testKey || (s.Counts().KeysCreated == 1) != after {
			t.Errorf("after %t: answered %d, counts %+v", after, w.Code, s.Counts())
		}
	}
	for call, request := range map[KeyCall][2]string{CallList: {http.MethodGet, ""}, CallGet: {http.MethodGet, "/n"}, CallDelete: {http.MethodDelete, "/n"}} {
		s.InjectKeyFault(KeyFault{Call: call, Kind: KindStatus, Status: 429, Times: 1})
		if got := callKeys(s, bearer, request[0], platformKeysPath+request[1], "").Code; got != 429 {
			t.Errorf("%s: status is %d", call, got)
		}
	}
}
