// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// newLoggedSim returns a simulation and what it logs.
func newLoggedSim(t *testing.T) (*Sim, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	return newSimWith(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}), &log
}

// TestLog_oneLineForEachCall: the line has the path, the status and the token's ID.
func TestLog_oneLineForEachCall(t *testing.T) {
	s, log := newLoggedSim(t)
	token := issuedToken(t, s)
	askMe(s, "Bearer "+token)
	s.Inject(Fault{Kind: KindStatus, Status: 500, Times: 1})
	exchange(s, nil)
	id := s.Issued()[0].ID
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	wants := []string{
		"method=POST path=/apikey status=200 token_id=" + id,
		"method=GET path=/v1/me status=200 token_id=" + id,
		"method=POST path=/apikey status=500 fault=status",
	}
	if len(lines) != len(wants) {
		t.Fatalf("%d lines for %d calls", len(lines), len(wants))
	}
	for i, want := range wants {
		if !strings.HasSuffix(lines[i], want) {
			t.Errorf("the log says %q, want %q", lines[i], want)
		}
	}
	if strings.Contains(log.String(), token) {
		t.Error("the log holds a token")
	}
}

func TestLog_neverHoldsAKey(t *testing.T) {
	s, log := newLoggedSim(t)
	exchange(s, func(r *http.Request) { r.URL.Path = "/apikey/" + testKey })
	token := issuedToken(t, s)
	s.RevokeKey(testKey)
	askMe(s, "Bearer "+token)
	for _, kind := range []FaultKind{KindStatus, KindRedirect} {
		s.Inject(Fault{Kind: kind})
		exchange(s, nil)
	}
	if log.Len() == 0 || strings.Contains(log.String(), testKey) {
		t.Fatalf("the log is %q", log)
	}
}

func TestLog_unknownPathIsNotNamed(t *testing.T) {
	s, log := newLoggedSim(t)
	s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/elsewhere", nil))
	if !strings.Contains(log.String(), "path=(unknown) status=404") {
		t.Fatalf("the log is %q", log)
	}
}

func TestLog_noKeyFromThePathOfTheKeyAPI(t *testing.T) {
	s, log := newLoggedSim(t)
	callKeys(s, bearerOf(t, s, testKey), http.MethodDelete, "/v1/apikeys/"+testKey, "")
	id := s.Issued()[0].ID
	if strings.Contains(log.String(), testKey) || !strings.Contains(log.String(), "method=DELETE path=/v1/apikeys/{id} status=404 token_id="+id) {
		t.Fatalf("the log is %q", log)
	}
}
