// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

const testKey = "a-key"

func newSim(t *testing.T) *Sim {
	t.Helper()
	return newSimWith(t, Options{})
}

// newSimWith accepts testKey, and signs with a key of its own, and quickly.
func newSimWith(t *testing.T, o Options) *Sim {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o.Keys, o.TokenTTL, o.Key = []string{testKey}, time.Minute, key
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// exchange asks for a token without a network in between.
func exchange(s *Sim, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/apikey?apikey="+testKey, nil)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func issuedToken(t *testing.T, s *Sim) string {
	t.Helper()
	w := exchange(s, nil)
	var body struct{ JWT string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, error %v", w.Code, err)
	}
	return body.JWT
}

func askMe(s *Sim, authorization string) int {
	r := httptest.NewRequest(http.MethodGet, "/v1/me", nil)
	r.Header.Set("Authorization", authorization)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code
}

func TestManager_acceptsATokenUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		token := issuedToken(t, s)
		if status := askMe(s, "Bearer "+token); status != http.StatusOK {
			t.Fatalf("status is %d", status)
		}
		time.Sleep(time.Minute)
		if status := askMe(s, "Bearer "+token); status != http.StatusUnauthorized {
			t.Fatalf("after its end status is %d", status)
		}
		if got := s.Counts(); got != (Counts{Exchanges: 1, MostInFlight: 1, Issued: 1, MeAccepted: 1, MeRefused: 1}) {
			t.Fatalf("counts are %+v", got)
		}
	})
}

func TestCounts_inFlightAndMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		s.Inject(Fault{Latency: time.Second})
		for range 3 {
			go exchange(s, nil)
			time.Sleep(600 * time.Millisecond) // Two overlap at a time.
		}
		if got := s.Counts(); got.InFlight != 1 || got.MostInFlight != 2 {
			t.Errorf("counts are %+v", got)
		}
		time.Sleep(time.Second)
		if got := s.Counts(); got.InFlight != 0 || got.MostInFlight != 2 || got.Exchanges != 3 {
			t.Errorf("at the end counts are %+v", got)
		}
	})
}

func TestRevokeKey_noTokenAfterwards(t *testing.T) {
	s := newSim(t)
	s.RevokeKey(testKey)
	if got := exchange(s, nil).Code; got != http.StatusUnauthorized {
		t.Fatalf("status is %d", got)
	}
}

func TestIssued_isBounded(t *testing.T) {
	s := newSim(t)
	s.issued = make([]IssuedToken, 2*keptIssues)
	issuedToken(t, s)
	if got := len(s.Issued()); got != keptIssues {
		t.Fatalf("%d are remembered", got)
	}
}
