// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestFault_hitsAsManyExchangesAsItSays(t *testing.T) {
	s := newSim(t)
	s.Inject(Fault{Kind: KindStatus, Status: 503, Times: 2})
	var statuses []int
	for range 3 {
		statuses = append(statuses, exchange(s, nil).Code)
	}
	if statuses[0] != 503 || statuses[1] != 503 || statuses[2] != 200 {
		t.Fatalf("statuses are %v", statuses)
	}
}

func TestFault_errorBodyEchoesTheKey(t *testing.T) {
	s := newSim(t)
	s.Inject(Fault{Kind: KindStatus, Status: 500})
	if !strings.Contains(exchange(s, nil).Body.String(), testKey) {
		t.Error("the error does not echo the key")
	}
}

// TestFault_delayEndsWithClientOrFault: both latency and a hang end when the client
// leaves or the fault is cleared.
func TestFault_delayEndsWithClientOrFault(t *testing.T) {
	for _, f := range []Fault{{Latency: time.Hour}, {Kind: KindHang}, {Kind: KindTrickle}} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			s.Inject(f)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			started := time.Now()
			exchange(s, func(r *http.Request) { *r = *r.WithContext(ctx) })
			if took := time.Since(started); took != 5*time.Second {
				t.Errorf("with a client that gives up it took %s", took)
			}
			time.AfterFunc(7*time.Second, s.ClearFault)
			started = time.Now()
			exchange(s, nil)
			if took := time.Since(started); took > 8*time.Second {
				t.Errorf("after the fault was cleared it took %s", took)
			}
		})
	}
}

func TestFault_answersTheBodyThatIsGiven(t *testing.T) {
	s := newTokenSim(t)
	for _, status := range []int{200, 400} {
		s.Inject(Fault{Kind: KindStatus, Status: status, ContentEncoding: "gzip", Body: `{"{field}":"{key}"}`})
		w := exchangeAt(s, "iam", testKey, nil)
		if w.Code != status || w.Header().Get("Content-Encoding") != "gzip" || w.Body.String() != `{"access_token":"`+testKey+`"}` {
			t.Errorf("answered %d %q", w.Code, w.Body)
		}
	}
	s.Inject(Fault{Kind: KindStatus, Status: 200})
	if w := exchangeAt(s, "iam", testKey, nil); w.Body.Len() != 0 {
		t.Errorf("without a body it answers %q", w.Body)
	}
}

func TestFault_answersARightToken(t *testing.T) {
	s := newSim(t)
	s.Inject(Fault{Kind: KindStatus, Status: 200, Body: `{"{field}":"{token}"}`})
	if got := askMe(s, "Bearer "+issuedToken(t, s)); got != http.StatusOK {
		t.Errorf("the token's status is %d", got)
	}
	if counts := s.Counts(); counts.Issued != 0 || counts.Exchanges != 1 {
		t.Errorf("counts are %+v", counts)
	}
}

func TestFault_statusDefaultsTo503(t *testing.T) {
	s := newSim(t)
	s.Inject(Fault{Kind: KindStatus, RetryAfter: "7"})
	w := exchange(s, nil)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "7" || !json.Valid(w.Body.Bytes()) {
		t.Fatalf("answered %d %v", w.Code, w.Header())
	}
}

func TestFault_unknownKindIsA500(t *testing.T) {
	s := newSim(t)
	s.Inject(Fault{Kind: "stattus"})
	if got := exchange(s, nil).Code; got != http.StatusInternalServerError {
		t.Fatalf("status is %d", got)
	}
}

func TestFault_clearedHangEndsInAToken(t *testing.T) {
	for _, f := range []Fault{{Kind: KindHang}, {Kind: KindStatus, Latency: time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			s.Inject(f)
			time.AfterFunc(time.Minute, s.ClearFault)
			issuedToken(t, s)
		})
	}
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(decoded, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// serveFault starts a server whose exchanges meet a fault, and returns how to make one.
func serveFault(t *testing.T, start func(*Sim) (*Server, error), f Fault) (*Server, func(context.Context) (*http.Response, error)) {
	t.Helper()
	s := newSim(t)
	s.Inject(f)
	server, err := start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	client := trusting(t, server)
	return server, func(ctx context.Context) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL()+"/apikey?apikey="+testKey, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		// Otherwise the client would undo compression by itself.
		r.Header.Set("Accept-Encoding", "identity")
		return client.Do(r)
	}
}

func TestFault_resetWithAndWithoutTLS(t *testing.T) {
	for name, start := range map[string]func(*Sim) (*Server, error){"http": Start, "https": StartTLS} {
		t.Run(name, func(t *testing.T) {
			_, exchange := serveFault(t, start, Fault{Kind: KindReset})
			resp, err := exchange(t.Context())
			if err == nil {
				resp.Body.Close()
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("instead of an answer: %v", err)
			}
			_, exchange = serveFault(t, start, Fault{Kind: KindResetMidBody})
			resp, err = exchange(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err = io.ReadAll(resp.Body); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("in the middle of the body: %v", err)
			}
		})
	}
}

func TestFault_redirectCarriesTheKey(t *testing.T) {
	s := newSim(t)
	for to, want := range map[string]string{"": "/elsewhere?apikey=", "https://elsewhere.example/x": "https://elsewhere.example/x?apikey="} {
		s.Inject(Fault{Kind: KindRedirect, RedirectTo: to})
		w := exchange(s, nil)
		if got := w.Header().Get("Location"); w.Code != http.StatusTemporaryRedirect || got != want+testKey {
			t.Errorf("answered %d to %s", w.Code, got)
		}
	}
}

func TestFault_compressedResponseIsValid(t *testing.T) {
	s := newSim(t)
	s.Inject(Fault{Kind: KindGzip})
	w := exchange(s, nil)
	unzipped, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ JWT string }
	if err := json.NewDecoder(unzipped).Decode(&body); err != nil || body.JWT == "" || w.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("error %v, header %v", err, w.Header())
	}
}

// TestFault_leavesNoGoroutineBehind: each fault ends once its client is gone.
func TestFault_leavesNoGoroutineBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, kind := range kinds() {
		server, exchange := serveFault(t, Start, Fault{Kind: kind})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if resp, err := exchange(ctx); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		cancel()
		server.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	deadline := time.After(10 * time.Second)
	for runtime.NumGoroutine() > before {
		select {
		case <-deadline:
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		default:
			runtime.Gosched()
		}
	}
}

// TestFault_endlessBodyEndsWithItsClient has no network in between.
func TestFault_endlessBodyEndsWithItsClient(t *testing.T) {
	s := newSim(t)
	s.Inject(Fault{Kind: KindEndlessBody})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	exchange(s, func(r *http.Request) { *r = *r.WithContext(ctx) })
}
