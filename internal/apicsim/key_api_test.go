// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newKeyBody asks for another key of the identity that newTokenSim's key has.
const newKeyBody = `{"name":"successor","description":"d","iam_id":"` + defaultIAMID + `","account_id":"` + defaultAccountID + `"}`

func bearerOf(t *testing.T, s *Sim, key string) string {
	t.Helper()
	token, _ := decodeBody(t, exchangeAt(s, "iam", key, nil))["access_token"].(string)
	return token
}

// callKeys calls the key API; the details are those of testKey.
func callKeys(s *Sim, bearer, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+bearer)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("IAM-ApiKey", testKey)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestKeyAPI_createReadUseDelete(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	w := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody)
	created := decodeBody(t, w)
	value, _ := created["apikey"].(string)
	if w.Code != http.StatusCreated || created["name"] != "successor" || created["description"] != "d" || created["locked"] != false {
		t.Fatalf("status %d", w.Code)
	}
	if got := exchangeAt(s, "login", value, nil).Code; got != http.StatusOK {
		t.Errorf("the new key's status is %d", got)
	}
	details := decodeBody(t, callKeys(s, bearer, http.MethodGet, "/v1/apikeys/details", ""))
	if details["id"] != s.Keys()[0].ID || details["iam_id"] != defaultIAMID || details["apikey"] != nil {
		t.Errorf("details are %v", details)
	}
	if _, err := time.Parse(timeLayout, created["created_at"].(string)); err != nil {
		t.Error(err)
	}
	if got := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+created["id"].(string), "").Code; got != http.StatusNoContent {
		t.Fatalf("deletion: status is %d", got)
	}
	if got := exchangeAt(s, "login", value, nil).Code; got != http.StatusUnauthorized {
		t.Errorf("after its deletion the key's status is %d", got)
	}
	if got := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+created["id"].(string), "").Code; got != http.StatusNotFound {
		t.Errorf("the second deletion: status is %d", got)
	}
	if k := s.Keys()[1]; k.Exists() || !k.CreatedByAPI || k.ID != created["id"] || k.KeyID != s.KeyID(value) {
		t.Errorf("the key is %+v", k)
	}
	if got := s.Counts(); got.KeysCreated != 1 || got.KeysDeleted != 1 || got.KeyCalls != 4 {
		t.Errorf("counts are %+v", got)
	}
}

func TestKeyAPI_tokenOutlivesItsKey(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	if got := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+s.Keys()[0].ID, "").Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	if got := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody).Code; got != http.StatusCreated {
		t.Fatalf("status is %d", got)
	}
	if got := callKeys(s, bearer, http.MethodGet, "/v1/apikeys/details", "").Code; got != http.StatusNotFound {
		t.Fatalf("the deleted key's details: status is %d", got)
	}
}

// TestKeyAPI_acceptsOnlyIAMTokensOfTheIdentity: only IAM's tokens are accepted, and only
// for the keys of their identity.
func TestKeyAPI_acceptsOnlyIAMTokensOfTheIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		s.AddLimitedKey("other-key", KeyOptions{IAMID: "IBMid-2"})
		s.AddLimitedKey("same-id-elsewhere", KeyOptions{AccountID: "account-2"})
		other, elsewhere := bearerOf(t, s, "other-key"), bearerOf(t, s, "same-id-elsewhere")
		calls := map[string]func(bearer string) int{
			"create":  func(b string) int { return callKeys(s, b, http.MethodPost, "/v1/apikeys", newKeyBody).Code },
			"details": func(b string) int { return callKeys(s, b, http.MethodGet, "/v1/apikeys/details", "").Code },
			"list": func(b string) int {
				return callKeys(s, b, http.MethodGet, "/v1/apikeys?iam_id="+defaultIAMID+"&account_id="+defaultAccountID, "").Code
			},
			"delete": func(b string) int { return callKeys(s, b, http.MethodDelete, "/v1/apikeys/"+s.Keys()[0].ID, "").Code },
			"get":    func(b string) int { return callKeys(s, b, http.MethodGet, "/v1/apikeys/"+s.Keys()[0].ID, "").Code },
			"disable": func(b string) int {
				return callKeys(s, b, http.MethodPost, "/v1/apikeys/"+s.Keys()[0].ID+"/disable", "").Code
			},
			"enable": func(b string) int {
				return callKeys(s, b, http.MethodDelete, "/v1/apikeys/"+s.Keys()[0].ID+"/disable", "").Code
			},
		}
		expired := bearerOf(t, s, testKey)
		for name, call := range calls {
			for whose, want := range map[string]struct {
				bearer string
				status int
			}{
				"the login service's": {issuedToken(t, s), 401}, "another identity's": {other, 403}, "another account's": {elsewhere, 403}, "none": {"", 401},
			} {
				if got := call(want.bearer); got != want.status {
					t.Errorf("%s with %s token: status is %d", name, whose, got)
				}
			}
		}
		time.Sleep(time.Minute)
		for name, call := range calls {
			if got := call(expired); got != http.StatusUnauthorized {
				t.Errorf("%s with an expired token: status is %d", name, got)
			}
		}
		if got := s.Counts(); got.KeysCreated != 0 || got.KeysDeleted != 0 || got.MeRefused != 0 {
			t.Errorf("counts are %+v", got)
		}
	})
}

func TestKeyAPI_twentyKeysPerIdentity(t *testing.T) {
	s := newTokenSim(t)
	s.AddLimitedKey("other-key", KeyOptions{IAMID: "IBMid-2"})
	bearer := bearerOf(t, s, testKey)
	for n := 2; n <= 20; n++ {
		if got := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody).Code; got != http.StatusCreated {
			t.Fatalf("key %d: status is %d", n, got)
		}
	}
	w := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody)
	if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "BXNIM0151E") {
		t.Fatalf("key 21: status is %d", w.Code)
	}
	if got := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+s.Keys()[5].ID, "").Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	if got := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody).Code; got != http.StatusCreated {
		t.Fatalf("after a deletion: status is %d", got)
	}
}

func TestKeyAPI_lockedKeyIsNotDeleted(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	s.LockKey(testKey)
	before := decodeBody(t, callKeys(s, bearer, http.MethodGet, "/v1/apikeys/details", ""))
	w := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+s.Keys()[0].ID, "")
	if w.Code != http.StatusConflict || !s.Keys()[0].Exists() || before["locked"] != true {
		t.Fatalf("status is %d", w.Code)
	}
	s.UnlockKey(testKey)
	after := decodeBody(t, callKeys(s, bearer, http.MethodGet, "/v1/apikeys/details", ""))
	if after["locked"] != false || after["entity_tag"] == before["entity_tag"] {
		t.Errorf("details are %v", after)
	}
	if got := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+s.Keys()[0].ID, "").Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
}

func TestKeyAPI_invalidRequests(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	for name, body := range map[string]string{
		"no JSON": "x", "no name": `{"iam_id":"` + defaultIAMID + `"}`, "no identity": `{"name":"n"}`, "too long": strings.Repeat(" ", maxKeyCallBytes+1),
		"a value to be stored": `{"name":"n","iam_id":"` + defaultIAMID + `","store_value":true}`,
	} {
		if got := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", body).Code; got != http.StatusBadRequest {
			t.Errorf("%s: status is %d", name, got)
		}
	}
	for _, query := range []string{"pagesize=0", "pagesize=101", "pagesize=x", "pagetoken=x", "pagetoken=", "pagetoken=-1"} {
		if got := callKeys(s, bearer, http.MethodGet, "/v1/apikeys?"+query, "").Code; got != http.StatusBadRequest {
			t.Errorf("%s: status is %d", query, got)
		}
	}
	if got := len(s.Keys()); got != 1 {
		t.Fatalf("%d keys", got)
	}
}

// listAll follows the pages of testKey's identity and returns the keys' names.
func listAll(t *testing.T, s *Sim, bearer string, size int) (names []string, pages int) {
	t.Helper()
	path := "/v1/apikeys?pagesize=" + strconv.Itoa(size)
	for path != "" {
		w := callKeys(s, bearer, http.MethodGet, path, "")
		body := decodeBody(t, w)
		keys, isList := body["apikeys"].([]any)
		if w.Code != http.StatusOK || !isList || len(keys) > size {
			t.Fatalf("status %d, %d keys", w.Code, len(keys))
		}
		for _, k := range keys {
			names = append(names, k.(map[string]any)["name"].(string))
		}
		pages++
		next, _ := body["next"].(string)
		if path = ""; next != "" {
			link, err := url.Parse(next)
			if err != nil || link.Host == "" {
				t.Fatalf("the next page is %q", next)
			}
			path = link.RequestURI()
		}
	}
	return names, pages
}

// TestKeyAPI_listHasEveryKeyOnce: each key of the identity is listed once, on pages of
// any size.
func TestKeyAPI_listHasEveryKeyOnce(t *testing.T) {
	s := newTokenSim(t)
	s.AddLimitedKey("other-key", KeyOptions{Name: "other's", IAMID: "IBMid-2"})
	for _, name := range []string{"b", "c", "d", "gone"} {
		s.AddLimitedKey(name, KeyOptions{Name: name})
	}
	bearer := bearerOf(t, s, testKey)
	s.RevokeKey("gone")
	for size, pages := range map[int]int{1: 4, 2: 2, 3: 2, 4: 1, 100: 1} {
		names, got := listAll(t, s, bearer, size)
		if strings.Join(names, " ") != "simulated b c d" || got != pages {
			t.Errorf("pages of %d: %v on %d", size, names, got)
		}
	}
}

// TestKeyAPI_createdKeyIsListedLate holds that it can be deleted by its ID before that.
func TestKeyAPI_createdKeyIsListedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		s.SetLag(Lag{List: 5 * time.Second})
		bearer := bearerOf(t, s, testKey)
		first, _ := decodeBody(t, callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody))["id"].(string)
		callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody)
		if got := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+first, "").Code; got != http.StatusNoContent {
			t.Errorf("deletion: status is %d", got)
		}
		time.Sleep(5*time.Second - time.Nanosecond)
		if names, _ := listAll(t, s, bearer, 20); len(names) != 1 {
			t.Errorf("a moment before, the list is %v", names)
		}
		time.Sleep(time.Nanosecond)
		if names, _ := listAll(t, s, bearer, 20); len(names) != 2 {
			t.Errorf("then the list is %v", names)
		}
	})
}

func TestKeyAPI_aKeyIsReadByItsID(t *testing.T) {
	s := newTokenSim(t)
	s.AddLimitedKey("second", KeyOptions{Name: "n", Description: "d", Life: time.Hour, ActionWhenLeaked: "disable", SupportSessions: true})
	bearer := bearerOf(t, s, testKey)
	second := s.Keys()[1]
	got := decodeBody(t, callKeys(s, bearer, http.MethodGet, "/v1/apikeys/"+second.ID, ""))
	for field, want := range map[string]any{
		"id": second.ID, "name": "n", "description": "d", "action_when_leaked": "disable", "support_sessions": true, "disabled": false, "locked": false,
		"created_at": second.CreatedAt.UTC().Format(timeLayout), "expires_at": second.CreatedAt.UTC().Add(time.Hour).Format(timeLayout), "apikey": nil,
	} {
		if got[field] != want {
			t.Errorf("%s is %v", field, got[field])
		}
	}
	s.RevokeKey("second")
	if got := callKeys(s, bearer, http.MethodGet, "/v1/apikeys/"+second.ID, "").Code; got != http.StatusNotFound {
		t.Errorf("after its deletion, status is %d", got)
	}
}

func TestKeyAPI_disabledKeyGetsNoTokenUntilEnabled(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	path := "/v1/apikeys/" + s.Keys()[0].ID
	tag := decodeBody(t, callKeys(s, bearer, http.MethodGet, path, ""))["entity_tag"]
	// Disabling what is disabled already changes nothing.
	for range 2 {
		if got := callKeys(s, bearer, http.MethodPost, path+"/disable", "").Code; got != http.StatusNoContent {
			t.Fatalf("status is %d", got)
		}
	}
	if w := exchangeAt(s, "iam", testKey, nil); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "BXNIM0462E") {
		t.Errorf("IAM answers %d", w.Code)
	}
	for _, service := range []string{"login", "platform"} {
		if got := exchangeAt(s, service, testKey, nil).Code; got != http.StatusUnauthorized {
			t.Errorf("%s: status is %d", service, got)
		}
	}
	if details := decodeBody(t, callKeys(s, bearer, http.MethodGet, path, "")); details["disabled"] != true || details["entity_tag"] == tag {
		t.Errorf("details are %v", details)
	}
	if got := callKeys(s, bearer, http.MethodDelete, path+"/disable", "").Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	if got := exchangeAt(s, "iam", testKey, nil).Code; got != http.StatusOK {
		t.Errorf("once it is enabled, status is %d", got)
	}
	s.LockKey(testKey)
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		if got := callKeys(s, bearer, method, path+"/disable", "").Code; got != http.StatusConflict {
			t.Errorf("%s of a locked key: status is %d", method, got)
		}
	}
}

func TestKeyAPI_longNamesAreShortened(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	for limit, want := range map[int]string{0: "successor", 4: "succ", 9: "successor"} {
		s.SetNameLimit(limit)
		if got := decodeBody(t, callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody))["name"]; got != want {
			t.Errorf("of %d characters: the name is %v", limit, got)
		}
	}
}

func TestKeyAPI_timesAreByTheServicesClock(t *testing.T) {
	s := newTokenSim(t)
	s.SetClockSkew(-time.Hour)
	bearer := bearerOf(t, s, testKey)
	w := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody)
	dated, err := http.ParseTime(w.Header().Get("Date"))
	if err != nil || time.Since(dated).Round(time.Minute) != time.Hour {
		t.Errorf("the answer is of %s, error %v", dated, err)
	}
	created, err := time.Parse(timeLayout, decodeBody(t, w)["created_at"].(string))
	if err != nil || time.Since(created) < 59*time.Minute || time.Since(created) > 62*time.Minute {
		t.Errorf("the key is of %s, error %v", created, err)
	}
}
