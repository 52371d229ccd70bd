// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestIAM_insistsOnItsProtocol(t *testing.T) {
	s := newTokenSim(t)
	for name, c := range map[string]struct {
		status int
		change func(*http.Request)
	}{
		"no Accept":            {415, func(r *http.Request) { r.Header.Del("Accept") }},
		"another content type": {415, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }},
		"no key": {400, func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader("grant_type=urn:ibm:params:oauth:grant-type:apikey"))
		}},
		"another grant type": {400, func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader("grant_type=password&apikey=" + testKey))
		}},
		"a key in the URL": {400, func(r *http.Request) { r.URL.RawQuery = "apikey=" + testKey }},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exchangeAt(s, "iam", testKey, c.change).Code; got != c.status {
				t.Fatalf("status is %d, want %d", got, c.status)
			}
		})
	}
}

func TestIAM_namesARequestThatLacksSomething(t *testing.T) {
	for _, form := range []string{"grant_type=urn:ibm:params:oauth:grant-type:apikey", "apikey=x", ""} {
		w := exchangeAt(newTokenSim(t), "iam", testKey, func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(form)) })
		if w.Code != http.StatusBadRequest || decodeBody(t, w)["errorCode"] != "BXNIM0109E" {
			t.Errorf("%q: answered %d", form, w.Code)
		}
	}
}

func TestIAM_refusalsHaveCodeAndRequest(t *testing.T) {
	for code, prepare := range map[string]func(*Sim){
		"BXNIM0415E": func(s *Sim) { s.RevokeKey(testKey) },
		"BXNIM0462E": func(s *Sim) { s.DisableKey(testKey) },
	} {
		s := newTokenSim(t)
		prepare(s)
		w := exchangeAt(s, "iam", testKey, nil)
		body := decodeBody(t, w)
		details, _ := body["context"].(map[string]any)
		if w.Code != http.StatusBadRequest || body["errorCode"] != code || details["requestId"] == "" {
			t.Errorf("status %d, body %v", w.Code, body)
		}
	}
}

func TestIAM_namesEveryResponse(t *testing.T) {
	s := newTokenSim(t)
	seen := map[string]bool{}
	for _, answer := range []http.Header{
		exchangeAt(s, "iam", testKey, nil).Header(),
		exchangeAt(s, "iam", "unknown", nil).Header(),
		callKeys(s, "", http.MethodGet, "/v1/apikeys", "").Header(),
		callKeys(s, bearerOf(t, s, testKey), http.MethodGet, "/v1/apikeys/details", "").Header(),
	} {
		seen[answer.Get(transactionID)] = true
	}
	if len(seen) != 4 || seen[""] {
		t.Errorf("the answers are named %v", seen)
	}
	for _, service := range []string{"login", "platform"} {
		if id := exchangeAt(s, service, testKey, nil).Header().Get(transactionID); id != "" {
			t.Errorf("the %s service names an answer", service)
		}
	}
}

func TestIAM_onlyItsTokensNameTheIdentity(t *testing.T) {
	s := newTokenSim(t)
	s.AddLimitedKey("other-key", KeyOptions{IAMID: "iam-ServiceId-1", AccountID: "account-1"})
	token, _ := decodeBody(t, exchangeAt(s, "iam", "other-key", nil))["access_token"].(string)
	claims := claimsOf(t, token)
	account, _ := claims["account"].(map[string]any)
	if claims["iam_id"] != "iam-ServiceId-1" || account["bss"] != "account-1" {
		t.Errorf("claims are %v", claims)
	}
	for service, field := range map[string]string{"login": "jwt", "platform": "access_token"} {
		token, _ := decodeBody(t, exchangeAt(s, service, "other-key", nil))[field].(string)
		if claims := claimsOf(t, token); claims["iam_id"] != nil {
			t.Errorf("%s: claims are %v", service, claims)
		}
	}
}
