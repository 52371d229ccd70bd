// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const testKey = "a-key"

func newSim(t *testing.T) *Sim {
	t.Helper()
	s, err := New(Options{Keys: []string{testKey}, TokenTTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// buy asks for a token without a network in between.
func buy(s *Sim, change func(*http.Request)) *httptest.ResponseRecorder {
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

func boughtToken(t *testing.T, s *Sim) string {
	t.Helper()
	w := buy(s, nil)
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

func TestATokenIsTakenUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		token := boughtToken(t, s)
		if status := askMe(s, "Bearer "+token); status != http.StatusOK {
			t.Fatalf("status is %d", status)
		}
		time.Sleep(time.Minute)
		if status := askMe(s, "Bearer "+token); status != http.StatusUnauthorized {
			t.Fatalf("after its end status is %d", status)
		}
		if got := s.Counts(); got != (Counts{Exchanges: 1, Issued: 1, MeAccepted: 1, MeRefused: 1}) {
			t.Fatalf("counts are %+v", got)
		}
	})
}

func TestAForgedTokenIsRefused(t *testing.T) {
	s := newSim(t)
	foreign := boughtToken(t, newSim(t))
	for name, authorization := range map[string]string{
		"nothing": "", "another scheme": "Basic " + boughtToken(t, s), "another signer's token": "Bearer " + foreign, "a word": "Bearer word",
	} {
		if status := askMe(s, authorization); status != http.StatusUnauthorized {
			t.Errorf("%s: status is %d", name, status)
		}
	}
}

func TestTheLoginServiceInsistsOnItsProtocol(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		change func(*http.Request)
	}{
		"another method":          {405, func(r *http.Request) { r.Method = http.MethodGet }},
		"no Accept":               {415, func(r *http.Request) { r.Header.Del("Accept") }},
		"another content type":    {415, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }},
		"a body":                  {400, func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) }},
		"no key":                  {400, func(r *http.Request) { r.URL.RawQuery = "" }},
		"a key that is not known": {401, func(r *http.Request) { r.URL.RawQuery = "apikey=x" }},
	} {
		t.Run(name, func(t *testing.T) {
			if got := buy(newSim(t), c.change).Code; got != c.status {
				t.Fatalf("status is %d, want %d", got, c.status)
			}
		})
	}
}

func TestARevokedKeyBuysNothing(t *testing.T) {
	s := newSim(t)
	s.RevokeKey(testKey)
	if got := buy(s, nil).Code; got != http.StatusUnauthorized {
		t.Fatalf("status is %d", got)
	}
}

func TestOnlySoManyIssuesAreRemembered(t *testing.T) {
	s := newSim(t)
	s.issued = make([]IssuedToken, 2*keptIssues)
	boughtToken(t, s)
	if got := len(s.Issued()); got != keptIssues+1 {
		t.Fatalf("%d are remembered", got)
	}
}

func TestAFaultHitsAsManyExchangesAsItSays(t *testing.T) {
	s := newSim(t)
	s.Inject(Fault{Kind: KindStatus, Status: 503, Times: 2})
	var statuses []int
	for range 3 {
		statuses = append(statuses, buy(s, nil).Code)
	}
	if statuses[0] != 503 || statuses[1] != 503 || statuses[2] != 200 {
		t.Fatalf("statuses are %v", statuses)
	}
}

func TestAnErrorBodyEchoesTheKey(t *testing.T) {
	s := newSim(t)
	for _, kind := range []FaultKind{KindStatus, KindNotJSON, KindNoJWT, KindJWTNotString, KindGzipBroken} {
		s.Inject(Fault{Kind: kind, Status: 500})
		if !strings.Contains(buy(s, nil).Body.String(), testKey) {
			t.Errorf("%s does not echo the key", kind)
		}
	}
}

func TestLatencyAndHangsEndWithTheClientOrTheFault(t *testing.T) {
	for _, f := range []Fault{{Latency: time.Hour}, {Kind: KindHang}, {Kind: KindTrickle}} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			s.Inject(f)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			started := time.Now()
			buy(s, func(r *http.Request) { *r = *r.WithContext(ctx) })
			if took := time.Since(started); took != 5*time.Second {
				t.Errorf("with a client that gives up it took %s", took)
			}
			time.AfterFunc(7*time.Second, s.ClearFault)
			started = time.Now()
			buy(s, nil)
			if took := time.Since(started); took > 8*time.Second {
				t.Errorf("after the fault was cleared it took %s", took)
			}
		})
	}
}

func TestAServerRefusesConnectionsAndComesBackOnItsPort(t *testing.T) {
	server, err := Start(newSim(t))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	address := server.URL()
	if err := server.Refuse(); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.Get(address); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			resp.Body.Close()
		}
		t.Fatalf("error is %v", err)
	}
	if err := server.Accept(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if server.URL() != address {
		t.Fatal("the server came back elsewhere")
	}
}

func TestAnotherProcessSteersTheFaults(t *testing.T) {
	s := newSim(t)
	control := s.Control()
	send := func(method, path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		control.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w
	}
	if got := send(http.MethodPut, "/fault", `{"kind":"status","status":503}`).Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	if got := buy(s, nil).Code; got != 503 {
		t.Fatalf("status is %d", got)
	}
	send(http.MethodDelete, "/fault", "")
	if got := buy(s, nil).Code; got != 200 {
		t.Fatalf("status is %d", got)
	}
	if got := send(http.MethodPut, "/fault", `no`).Code; got != http.StatusBadRequest {
		t.Fatalf("status is %d", got)
	}
	if got := send(http.MethodGet, "/counts", "").Body.String(); !strings.Contains(got, `"exchanges":2`) {
		t.Fatalf("counts are %s", got)
	}
}
