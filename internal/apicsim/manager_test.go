// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestManager_refusesAForgedToken(t *testing.T) {
	s := newSim(t)
	foreign := issuedToken(t, newSim(t))
	for name, authorization := range map[string]string{
		"nothing": "", "another scheme": "Basic " + issuedToken(t, s), "another signer's token": "Bearer " + foreign, "a word": "Bearer word",
	} {
		if status := askMe(s, authorization); status != http.StatusUnauthorized {
			t.Errorf("%s: status is %d", name, status)
		}
	}
}

func TestManager_tellsExpiredFromForged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		token := issuedToken(t, s)
		time.Sleep(2 * time.Minute)
		for bearer, says := range map[string]string{token: "expired", issuedToken(t, newSim(t)): "signature", "word": "no JWT"} {
			r := httptest.NewRequest(http.MethodGet, "/v1/me", nil)
			r.Header.Set("Authorization", "Bearer "+bearer)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			var body struct{ Message string }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || !strings.Contains(body.Message, says) {
				t.Errorf("the message is %q, want it to say %q", body.Message, says)
			}
		}
	})
}

func TestManager_refusesATokenWithoutExpiry(t *testing.T) {
	s := newSim(t)
	token, err := s.login().sign(map[string]any{"jti": "an-id"})
	if err != nil {
		t.Fatal(err)
	}
	if status := askMe(s, "Bearer "+token); status != http.StatusUnauthorized {
		t.Fatalf("status is %d", status)
	}
}
