// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	testClientID     = "the-client"
	testClientSecret = "the-client's-secret"
)

// newTokenSim accepts testKey at all token services.
func newTokenSim(t *testing.T) *Sim {
	t.Helper()
	return newSimWith(t, Options{ClientID: testClientID, ClientSecret: testClientSecret})
}

// exchangeAt asks a token service, by its name, for a token without a network in between.
func exchangeAt(s *Sim, service, key string, change func(*http.Request)) *httptest.ResponseRecorder {
	var r *http.Request
	switch service {
	case "iam":
		form := url.Values{"grant_type": {"urn:ibm:params:oauth:grant-type:apikey"}, "apikey": {key}}
		r = httptest.NewRequest(http.MethodPost, "/identity/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case "platform":
		body, _ := json.Marshal(map[string]string{
			"grant_type": "api_key", "api_key": key, "client_id": testClientID, "client_secret": testClientSecret,
		})
		r = httptest.NewRequest(http.MethodPost, "/api/token", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
	default:
		r = httptest.NewRequest(http.MethodPost, "/apikey?apikey="+url.QueryEscape(key), nil)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("Accept", "application/json")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func decodeBody(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("status %d, error %v", w.Code, err)
	}
	return body
}

func TestEndpoints_managerAcceptsEachServicesToken(t *testing.T) {
	s := newTokenSim(t)
	for service, field := range map[string]string{"login": "jwt", "iam": "access_token", "platform": "access_token"} {
		w := exchangeAt(s, service, testKey, nil)
		token, _ := decodeBody(t, w)[field].(string)
		if w.Code != http.StatusOK || askMe(s, "Bearer "+token) != http.StatusOK {
			t.Errorf("%s: status %d", service, w.Code)
		}
	}
	if got := s.Counts(); got.Exchanges != 3 || got.Issued != 3 || got.MeAccepted != 3 {
		t.Errorf("counts are %+v", got)
	}
}

func TestEndpoints_onlyOAuthTellsTheLifetime(t *testing.T) {
	s := newTokenSim(t)
	for service, want := range map[string]struct{ expiresIn, expiration bool }{
		"login": {}, "iam": {true, true}, "platform": {true, false},
	} {
		body := decodeBody(t, exchangeAt(s, service, testKey, nil))
		if (body["expires_in"] == 60.0) != want.expiresIn || (body["token_type"] == "Bearer") != want.expiresIn {
			t.Errorf("%s: expires_in is %v, token_type %v", service, body["expires_in"], body["token_type"])
		}
		if expiration, _ := body["expiration"].(float64); (time.Until(time.Unix(int64(expiration), 0)) > 0) != want.expiration {
			t.Errorf("%s: expiration is %v", service, body["expiration"])
		}
	}
}

func TestEndpoints_signatureAlgorithms(t *testing.T) {
	s, err := New(Options{Keys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	for service, want := range map[string][2]string{"login": {"jwt", "eyJhbGciOiJFUzM4NCIs"}, "iam": {"access_token", "eyJhbGciOiJSUzI1NiIs"}} {
		token, _ := decodeBody(t, exchangeAt(s, service, testKey, nil))[want[0]].(string)
		if !strings.HasPrefix(token, want[1]) {
			t.Errorf("%s: the token's header is another", service)
		}
		if status := askMe(s, "Bearer "+token); status != http.StatusOK {
			t.Errorf("%s: the API manager answers its token with %d", service, status)
		}
	}
}

func TestEndpoints_otherMethodsAreRefusedAndCounted(t *testing.T) {
	s := newTokenSim(t)
	for _, service := range []string{"login", "iam", "platform"} {
		if got := exchangeAt(s, service, testKey, func(r *http.Request) { r.Method = http.MethodGet }).Code; got != http.StatusMethodNotAllowed {
			t.Errorf("%s: status is %d", service, got)
		}
	}
	if got := s.Counts(); got.Exchanges != 3 || got.Issued != 0 || got.Refused != 0 {
		t.Errorf("counts are %+v", got)
	}
}

// TestEndpoints_refusedCountsKeysAlone: a request that is refused before its key is
// looked at does not count.
func TestEndpoints_refusedCountsKeysAlone(t *testing.T) {
	s := newTokenSim(t)
	exchangeAt(s, "iam", "another-key", nil)
	exchangeAt(s, "iam", testKey, func(r *http.Request) { r.Header.Del("Accept") })
	if got := s.Counts(); got.Refused != 1 || got.Exchanges != 2 {
		t.Fatalf("counts are %+v", got)
	}
}

func TestFault_ofOneServiceAlone(t *testing.T) {
	s := newTokenSim(t)
	s.Inject(Fault{Service: "iam", Kind: KindStatus, Status: 500, Times: 1})
	for _, step := range []struct {
		service string
		status  int
	}{{"login", 200}, {"iam", 500}, {"iam", 200}, {"platform", 200}} {
		if got := exchangeAt(s, step.service, testKey, nil).Code; got != step.status {
			t.Errorf("%s: status is %d, want %d", step.service, got, step.status)
		}
	}
}
