// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/pipenet"
)

// pipedURL is that of the service of newPipedCaller.
const pipedURL = "http://127.0.0.1"

// reply answers a service's n-th request, counted from 1.
type reply func(n int, w http.ResponseWriter, r *http.Request)

// counted is a handler that gives the answers, and the number of requests it got.
func (answer reply) counted() (http.Handler, *atomic.Int32) {
	var requests atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(int(requests.Add(1)), w, r)
	}), &requests
}

// newService serves replies on loopback and returns its URL and the number of
// requests it got.
func newService(t *testing.T, answer reply) (string, *atomic.Int32) {
	t.Helper()
	handler, requests := answer.counted()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL, requests
}

// newPipedCaller calls a service for testing/synctest, without sockets, and returns the
// number of requests that it got.
func newPipedCaller(t *testing.T, answer reply, retries int) (*Caller, *atomic.Int32) {
	t.Helper()
	handler, requests := answer.counted()
	network := pipenet.Serve(handler)
	t.Cleanup(network.Close)
	transport := newTransport(t, &Transports{DialContext: network.Line().Dial}, "")
	return newCallerOver(t, transport, pipedURL, retries), requests
}

func newCaller(t *testing.T, url string, retries int) *Caller {
	t.Helper()
	return newCallerOver(t, newTransport(t, &Transports{}, ""), url, retries)
}

func newCallerOver(t *testing.T, transport http.RoundTripper, url string, retries int) *Caller {
	t.Helper()
	c, err := NewCaller(Options{
		Service: "test service", URL: url, URLField: "test_url",
		Transport: transport, RequestTimeout: time.Second, MaxRetries: retries,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// put sends a request that holds a secret everywhere a request can hold one.
func put(ctx context.Context, c *Caller, base string, once bool) (*Answer, error) {
	return c.Send(ctx, Request{
		Method: http.MethodPut, URL: base + "/?key=" + string(testSecret), Body: []byte(testSecret), Once: once,
		Header: http.Header{"Authorization": {string(testSecret)}},
	}, func(*Answer) Refusal {
		return Refusal{Reason: "refused the request", Code: "no_way", Advice: "ask otherwise"}
	})
}

func failure(t *testing.T, err error) *Error {
	t.Helper()
	var failed *Error
	if !errors.As(err, &failed) {
		t.Fatalf("the error is a %T", err)
	}
	if strings.Contains(fmt.Sprintf("%s %+v %#v", err, err, *failed), string(testSecret)) {
		t.Fatal("the error gives a secret away")
	}
	return failed
}

// status answers each of the codes once, and the last one from then on.
func status(codes ...int) reply {
	return func(n int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(codes[min(n, len(codes))-1])
		_, _ = io.WriteString(w, string(testSecret))
	}
}

func abort(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func hang(_ int, _ http.ResponseWriter, r *http.Request) {
	// Unread, the body would keep the server from noticing that the client is gone.
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// TestSend_onceIsNotRepeatedAfterAnEffect is the list of how
// a request may fail, whether it is then known to have had no effect, and how
// often it is sent if two further attempts are allowed.
func TestSend_onceIsNotRepeatedAfterAnEffect(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  reply
		unknown bool
		sent    int32
		// sentOnce is the same for a request with Once.
		sentOnce int32
	}{
		{"a connection that breaks off", abort, true, 3, 1},
		{"a service that hangs", hang, true, 3, 1},
		{"a 500", status(500), true, 3, 1},
		{"a 503", status(503), true, 3, 1},
		{"a 408", status(408), true, 1, 1},
		{"a 400", status(400), false, 1, 1},
		{"a 409", status(409), false, 1, 1},
		{"a redirect", status(307), false, 1, 1},
		{"a 429", status(429), false, 3, 3},
		{"a 500 and then a 429", status(500, 429), true, 3, 1},
		{"a 429 and then a 500", status(429, 500), true, 3, 2},
		{"a 503 and then a 409", status(503, 409), true, 2, 1},
		{"an answer that is too long", func(_ int, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, maxAnswerBytes+1))
		}, true, 1, 1},
		{"an answer that breaks off", func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("{"))
		}, true, 3, 1},
	} {
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, once %t", c.name, once), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					caller, requests := newPipedCaller(t, c.answer, 2)
					_, err := put(t.Context(), caller, pipedURL, once)
					failed := failure(t, err)
					want := c.sent
					if once {
						want = c.sentOnce
					}
					if got := requests.Load(); got != want || failed.Attempts != int(want) {
						t.Errorf("%d requests and %d attempts, want %d", got, failed.Attempts, want)
					}
					if failed.OutcomeUnknown != c.unknown {
						t.Errorf("the outcome's being unknown is %t", failed.OutcomeUnknown)
					}
				})
			})
		}
	}
}

func TestSend_notSentHasNoEffect(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	secured := httptest.NewUnstartedServer(nil)
	secured.Config.ErrorLog = log.New(io.Discard, "", 0)
	secured.StartTLS()
	t.Cleanup(secured.Close)
	plain, _ := newService(t, status(200))
	// The first handshake reads the system's roots, which may take longer than an attempt.
	if _, err := x509.SystemCertPool(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		url      string
		attempts int
	}{
		"a refused connection":     {closed.URL, 3},
		"an untrusted certificate": {secured.URL, 1},
		"a port without TLS":       {"https" + strings.TrimPrefix(plain, "http"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := put(t.Context(), newCaller(t, c.url, 2), c.url, true)
			if failed := failure(t, err); failed.OutcomeUnknown || failed.Attempts != c.attempts {
				t.Fatalf("%d attempts, unknown outcome %t: %s", failed.Attempts, failed.OutcomeUnknown, err)
			}
		})
	}
}

// roundTripper is a transport that does not say how far a request got.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestSend_silentTransportLeavesOutcomeUnknown(t *testing.T) {
	c := newCallerOver(t, roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, errors.New(string(testSecret))
	}), "http://127.0.0.1", 2)
	_, err := put(t.Context(), c, "http://127.0.0.1", true)
	if failed := failure(t, err); !failed.OutcomeUnknown || failed.Attempts != 1 {
		t.Fatalf("%d attempts, unknown outcome %t", failed.Attempts, failed.OutcomeUnknown)
	}
}

// TestSend_responseAtTheDeadlineCounts is about an effect that took place: the
// caller must not be told that it is unknown.
func TestSend_responseAtTheDeadlineCounts(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := newCallerOver(t, roundTripper(func(*http.Request) (*http.Response, error) {
		cancel()
		return &http.Response{StatusCode: http.StatusCreated, Body: io.NopCloser(strings.NewReader("{}"))}, nil
	}), "http://127.0.0.1", 2)
	a, err := put(ctx, c, "http://127.0.0.1", true)
	if err != nil || a.Status != http.StatusCreated || string(a.Body) != "{}" {
		t.Fatalf("answer %v, error %v", a, err)
	}
}

func TestSend_refusalInTheServicesTerms(t *testing.T) {
	url, _ := newService(t, status(409))
	_, err := put(t.Context(), newCaller(t, url, 2), url, false)
	failed := failure(t, err)
	want := "test service at " + strings.TrimPrefix(url, "http://") + ": refused the request (HTTP 409, no_way); ask otherwise"
	if err.Error() != want || failed.Outcome != Refused || failed.Code != "no_way" || failed.Status != 409 {
		t.Fatalf("outcome %d, code %q: %s", failed.Outcome, failed.Code, err)
	}
}

// named answers every request with a body, and a name for the request in X-Request.
func named(id string, code int, body string) reply {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request", id)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func TestSend_errorsNameTheRequest(t *testing.T) {
	const fresh = "a-fresh-key-0123456789"
	for _, c := range []struct {
		name   string
		header string
		inBody string
		answer reply
		want   string
	}{
		{"in a refusal", "X-Request", "", named("id-1", 400, "{}"), "id-1"},
		{"in a refusal whose body names it too", "X-Request", "id-2", named("id-1", 400, "{}"), "id-2"},
		{"in a failure", "X-Request", "", named("id-1", 500, "{}"), "id-1"},
		{"in a rate limit", "X-Request", "", named("id-1", 429, "{}"), "id-1"},
		{"in a redirect", "X-Request", "", named("id-1", 307, ""), "id-1"},
		{"in an answer of no use", "X-Request", "", named("id-1", 200, "{}"), "id-1"},
		{"not if it is a secret", "X-Request", "", named(string(testSecret), 500, "{}"), ""},
		{"not if it holds some of a secret", "X-Request", "", named("id-"+string(testSecret[2:10]), 400, "{}"), ""},
		{"not if it is what the answer brings", "X-Request", "", named(fresh, 201, `{"apikey":"`+fresh+`"}`), ""},
		{"not if it is no name", "X-Request", "", named("two words", 500, "{}"), ""},
		{"not if there is none", "X-Other", "", named("id-1", 500, "{}"), ""},
		{"not if the service has no such header", "", "", named("id-1", 500, "{}"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, _ := newService(t, c.answer)
			caller := newCaller(t, url, 0)
			caller.idHeader = c.header
			a, err := caller.Send(t.Context(), Request{Method: http.MethodPost, URL: url, Secrets: []Secret{testSecret}}, func(*Answer) Refusal {
				return Refusal{Reason: "refused the request", RequestID: c.inBody}
			})
			if err == nil {
				err = caller.InvalidResponse(a, "answered something of no use")
			}
			failed := failure(t, err)
			sentence := "; IBM's support finds the request as " + c.want
			if failed.RequestID != c.want || strings.HasSuffix(err.Error(), sentence) != (c.want != "") || strings.Contains(err.Error(), fresh) {
				t.Errorf("the request is named %q: %s", failed.RequestID, err)
			}
		})
	}
}

func TestSend_invalidResponseMayMeanAnEffect(t *testing.T) {
	url, _ := newService(t, status(200))
	c := newCaller(t, url, 2)
	a, err := put(t.Context(), c, url, true)
	if err != nil {
		t.Fatal(err)
	}
	failed := failure(t, c.InvalidResponse(a, "answered something of no use"))
	if !failed.OutcomeUnknown || failed.Outcome != Unavailable || failed.Status != 200 || failed.Attempts != 1 {
		t.Fatalf("the error is %+v", failed)
	}
}

func TestSend_headerAndBodyInEveryAttempt(t *testing.T) {
	seen := make(chan string, 2)
	url, _ := newService(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- r.Method + r.Header.Get("Accept") + r.Header.Get("Authorization") + string(body)
		w.WriteHeader(http.StatusBadGateway)
	})
	_, err := put(t.Context(), newCaller(t, url, 1), url, false)
	failure(t, err)
	for range 2 {
		if got := <-seen; got != "PUT"+"application/json"+string(testSecret)+string(testSecret) {
			t.Error("a request differs from what was to be sent")
		}
	}
}

func TestSend_invalidURLIsNamedByItsField(t *testing.T) {
	_, err := NewCaller(Options{URL: "http://%zz" + string(testSecret), URLField: "test_url"})
	if err == nil || err.Error() != "test_url does not parse" {
		t.Fatal("the error is not about test_url, or quotes it")
	}
}
