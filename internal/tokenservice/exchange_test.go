// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/pipenet"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const testKey = "0Kq3+canary/key=Zz9"

const (
	testClientID     = "the-client"
	testClientSecret = "0Kq3+canary/client=Zz9"
)

// exchange is one key's way to a simulated service.
type exchange struct {
	sim *apicsim.Sim
	// server is nil, and dial connects in its place, in fake time.
	server  *apicsim.Server
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	kind    tokenservice.Kind
	timeout time.Duration
	retries int
	// host is the one that the key is sent to.
	host    string
	service tokenservice.Service
}

func newExchange(t *testing.T, timeout time.Duration, retries int) *exchange {
	t.Helper()
	return newExchangeOf(t, tokenservice.Login, timeout, retries)
}

func newExchangeOf(t *testing.T, kind tokenservice.Kind, timeout time.Duration, retries int) *exchange {
	t.Helper()
	x := &exchange{sim: newSim(t), kind: kind, timeout: timeout, retries: retries}
	server, err := apicsim.Start(x.sim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	x.server = server
	x.moveTo(t, server.URL())
	return x
}

// newSim signs with one key for all, and quickly.
func newSim(t *testing.T) *apicsim.Sim {
	t.Helper()
	key, err := apicsim.SharedKey()
	check(t, err)
	sim, err := apicsim.New(apicsim.Options{Keys: []string{testKey}, ClientID: testClientID, ClientSecret: testClientSecret, Key: key})
	check(t, err)
	return sim
}

// inFakeTime runs a test in a bubble with an exchange whose attempts end after a second,
// on a network in memory: a wait takes no time.
func inFakeTime(t *testing.T, kind tokenservice.Kind, retries int, test func(*testing.T, *exchange)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &exchange{sim: newSim(t), kind: kind, timeout: time.Second, retries: retries}
		network := pipenet.Serve(x.sim)
		t.Cleanup(network.Close)
		x.dial = network.Line().Dial
		x.moveTo(t, "http://127.0.0.1")
		test(t, x)
	})
}

// moveTo has the key sent to another address of the simulation from now on.
func (x *exchange) moveTo(t *testing.T, base string) {
	t.Helper()
	_, x.host, _ = strings.Cut(base, "://")
	x.service = newService(t, &upstream.Transports{DialContext: x.dial}, x.kind, base+tokenPath(x.kind), "", x.timeout, x.retries)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tokenPath(kind tokenservice.Kind) string {
	return map[tokenservice.Kind]string{
		tokenservice.Login: "/apikey", tokenservice.IAM: "/identity/token", tokenservice.Platform: "/api/token",
	}[kind]
}

func newLogin(t *testing.T, tokenURL, caPEM string, timeout time.Duration, retries int) tokenservice.Service {
	t.Helper()
	return newService(t, &upstream.Transports{}, tokenservice.Login, tokenURL, caPEM, timeout, retries)
}

func newService(t *testing.T, transports *upstream.Transports, kind tokenservice.Kind, tokenURL, caPEM string, timeout time.Duration, retries int) tokenservice.Service {
	t.Helper()
	transport, err := transports.New(caPEM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	service, err := tokenservice.New(tokenservice.Options{
		Kind: kind, TokenURL: tokenURL, APIKey: testKey, ClientID: testClientID, ClientSecret: testClientSecret,
		Transport: transport, RequestTimeout: timeout, MaxRetries: retries,
	})
	if err != nil {
		t.Fatal(err)
	}
	return service
}

// requireSilent fails if the text gives away the key in a form that it was sent
// in. It does not print what it searches.
func requireSilent(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{testKey, testClientSecret} {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, form) {
				t.Fatal("the text gives a secret away")
			}
		}
	}
}

func failure(t *testing.T, err error) *upstream.Error {
	t.Helper()
	var failed *upstream.Error
	if !errors.As(err, &failed) {
		t.Fatalf("the error is a %T, want a *upstream.Error", err)
	}
	requireSilent(t, fmt.Sprintf("%s %+v %#v", err, err, *failed))
	return failed
}

// TestExchange_tokenHasIDAndExpiry asks every service.
func TestExchange_tokenHasIDAndExpiry(t *testing.T) {
	for _, kind := range tokenservice.Kinds() {
		t.Run(string(kind), func(t *testing.T) { requireSale(t, newExchangeOf(t, kind, 5*time.Second, 0)) })
	}
}

func requireSale(t *testing.T, x *exchange) {
	t.Helper()
	token, err := x.service.Exchange(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	issued := x.sim.Issued()[0]
	if token.ID != issued.ID || !token.ExpiresAt.Equal(issued.ExpiresAt.Truncate(time.Second)) {
		t.Fatalf("got token %s until %s", token.ID, token.ExpiresAt)
	}
	if token.ExpiresAt.Location() != time.UTC {
		t.Fatal("the expiry is not in UTC")
	}
	if me := callMe(t, x.server.URL(), string(token.Value)); me != http.StatusOK {
		t.Fatalf("/v1/me answered %d", me)
	}
}

func callMe(t *testing.T, base, bearer string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestToken_notPrintedByAnyVerb(t *testing.T) {
	token := tokenservice.Token{Value: testKey}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		requireSilent(t, fmt.Sprintf(verb, token))
	}
}

func TestExchange_refusedConnectionIsRetriedAndNamed(t *testing.T) {
	x := newExchange(t, time.Second, 1)
	if err := x.server.Refuse(); err != nil {
		t.Fatal(err)
	}
	_, err := x.service.Exchange(context.Background())
	failed := failure(t, err)
	if failed.Attempts != 2 || !strings.Contains(err.Error(), "refused the connection (2 attempts, ") {
		t.Fatal(err)
	}
}

func TestExchange_retriesOnlyTransientFailures(t *testing.T) {
	for _, c := range []struct {
		name     string
		fault    apicsim.Fault
		attempts int
		succeeds bool
	}{
		{"a reset connection", apicsim.Fault{Kind: apicsim.KindReset, Times: 1}, 2, true},
		{"an answer that broke off", apicsim.Fault{Kind: apicsim.KindResetMidBody, Times: 1}, 2, true},
		{"a 503", apicsim.Fault{Kind: apicsim.KindStatus, Status: 503, Times: 2}, 3, true},
		{"a 503 that stays", apicsim.Fault{Kind: apicsim.KindStatus, Status: 503}, 3, false},
		{"a 429 that asks for no wait", apicsim.Fault{Kind: apicsim.KindStatus, Status: 429, RetryAfter: "0", Times: 1}, 2, true},
		{"a 429 that asks for a long wait", apicsim.Fault{Kind: apicsim.KindStatus, Status: 429, RetryAfter: "600"}, 1, false},
		{"a 401", apicsim.Fault{Kind: apicsim.KindStatus, Status: 401, Times: 1}, 1, false},
		{"a 404", apicsim.Fault{Kind: apicsim.KindStatus, Status: 404, Times: 1}, 1, false},
		{"a redirect", apicsim.Fault{Kind: apicsim.KindRedirect, Times: 1}, 1, false},
		{"an endless answer", apicsim.Fault{Kind: apicsim.KindEndlessBody, Times: 1}, 1, false},
		{"an invalid response", apicsim.Fault{Kind: apicsim.KindStatus, Status: 200, Times: 1}, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFakeTime(t, tokenservice.Login, 2, func(t *testing.T, x *exchange) {
				x.sim.Inject(c.fault)
				_, err := x.service.Exchange(context.Background())
				if (err == nil) != c.succeeds {
					t.Fatalf("error is %v", err)
				}
				if got := x.sim.Counts().Exchanges; got != c.attempts {
					t.Fatalf("%d attempts, want %d", got, c.attempts)
				}
			})
		})
	}
}

func TestExchange_passesRetryAfterOn(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"600": 10 * time.Minute, "999999999": time.Hour, "-5": 0, "soon": 0, "": 0,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
	} {
		t.Run(value, func(t *testing.T) {
			x := newExchange(t, time.Second, 0)
			x.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 429, RetryAfter: value})
			_, err := x.service.Exchange(context.Background())
			if got := failure(t, err).RetryAfter; got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		})
	}
}

func TestExchange_callersDeadlineEndsTheAttempts(t *testing.T) {
	inFakeTime(t, tokenservice.Login, 10, func(t *testing.T, x *exchange) {
		x.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503})
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, err := x.service.Exchange(ctx)
		failure(t, err)
		if took := time.Since(begun); took > 300*time.Millisecond {
			t.Errorf("the attempts ended after %s", took)
		}
		if got := x.sim.Counts().Exchanges; got > 4 {
			t.Fatalf("%d attempts in a fraction of a second", got)
		}
	})
}

func TestExchange_sendsNoKeyToARedirect(t *testing.T) {
	var seen []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.URL.Path)
	}))
	defer elsewhere.Close()
	x := newExchange(t, time.Second, 2)
	x.sim.Inject(apicsim.Fault{Kind: apicsim.KindRedirect, RedirectTo: elsewhere.URL + "/stolen"})
	_, err := x.service.Exchange(context.Background())
	failure(t, err)
	if len(seen) != 0 {
		t.Fatalf("%d requests followed the redirect", len(seen))
	}
}

func TestExchange_trustsOnlyTheConfiguredAuthority(t *testing.T) {
	sim, err := apicsim.New(apicsim.Options{Keys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := apicsim.StartTLS(sim)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_, err = newLogin(t, server.URL()+"/apikey", "", time.Second, 2).Exchange(context.Background())
	if failed := failure(t, err); failed.Attempts != 1 || !strings.Contains(err.Error(), "certificate that is not trusted") {
		t.Fatal(err)
	}
	if _, err := newLogin(t, server.URL()+"/apikey", server.CACertPEM(), time.Second, 0).Exchange(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestExchange_iamRefusalSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*apicsim.Sim)
		says    []string
	}{
		"a key that is not known": {func(s *apicsim.Sim) { s.RevokeKey(testKey) }, []string{"does not know the API key (HTTP 400, BXNIM0415E)", "create one in IBM Cloud", "finds the request as "}},
		"a key that is disabled":  {func(s *apicsim.Sim) { s.DisableKey(testKey) }, []string{"API key is disabled (HTTP 400, BXNIM0462E)", "enable it in IBM Cloud"}},
		"an error that echoes the key in every field": {
			func(s *apicsim.Sim) { s.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 401}) }, []string{"refused the API key (HTTP 401)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newExchangeOf(t, tokenservice.IAM, 5*time.Second, 2)
			c.prepare(x.sim)
			_, err := x.service.Exchange(context.Background())
			requireRefusal(t, err, c.says...)
		})
	}
}

func TestExchange_namesTheRequestForIBMsSupport(t *testing.T) {
	for service, named := range map[tokenservice.Kind]bool{tokenservice.Login: false, tokenservice.IAM: true, tokenservice.Platform: false} {
		t.Run(string(service), func(t *testing.T) {
			x := newExchangeOf(t, service, 5*time.Second, 0)
			for _, fault := range []apicsim.Fault{statusWith(400, "{}"), statusWith(500, "{}"), apicsim.Answering("no"), apicsim.Issuing(`{"exp":1}`)} {
				x.sim.Inject(fault)
				_, err := x.service.Exchange(t.Context())
				if got := failure(t, err).RequestID != ""; got != named {
					t.Errorf("that the request is named is %t: %s", got, err)
				}
			}
			x.sim.Inject(status(500)) // It names the request after the key.
			_, err := x.service.Exchange(t.Context())
			if failure(t, err).RequestID != "" {
				t.Error("the request is named after the key")
			}
		})
	}
}

func requireRefusal(t *testing.T, err error, says ...string) {
	t.Helper()
	if failure(t, err).Outcome != upstream.Refused {
		t.Fatalf("the outcome is no refusal: %s", err)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %s", text, err)
		}
	}
}

func TestPlatform_explainsAKeyUsedUpOrExpired(t *testing.T) {
	for name, limits := range map[string]apicsim.KeyOptions{
		"a single-use key":           {SingleUse: true},
		"a key that has expired now": {Life: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, tokenservice.Platform, 2, func(t *testing.T, x *exchange) {
				x.sim.AddLimitedKey(testKey, limits)
				_, err := x.service.Exchange(context.Background())
				check(t, err)
				time.Sleep(limits.Life)
				_, err = x.service.Exchange(context.Background())
				requireRefusal(t, err, "refused the API key, which worked before (HTTP 401)", "Multiple use of apikey")
			})
		})
	}
}

func TestPlatform_explainsAKeyThatNeverWorked(t *testing.T) {
	x := newExchangeOf(t, tokenservice.Platform, 5*time.Second, 2)
	x.sim.RevokeKey(testKey)
	_, err := x.service.Exchange(context.Background())
	requireRefusal(t, err, "refused the API key or the client credentials (HTTP 401)", "check client_id and client_secret")
}

// TestPlatform_unknownOutcomeIsNotRepeated counts what reaches the
// service: a key that may be used once must not be spent on a lost answer's
// repetition.
func TestPlatform_unknownOutcomeIsNotRepeated(t *testing.T) {
	for _, c := range []struct {
		name     string
		fault    apicsim.Fault
		attempts int
	}{
		{"a reset connection", apicsim.Fault{Kind: apicsim.KindReset}, 1},
		{"an answer that broke off", apicsim.Fault{Kind: apicsim.KindResetMidBody}, 1},
		{"a service that hangs", apicsim.Fault{Kind: apicsim.KindHang}, 1},
		{"a 500", apicsim.Fault{Kind: apicsim.KindStatus, Status: 500}, 1},
		{"a 503", apicsim.Fault{Kind: apicsim.KindStatus, Status: 503}, 1},
		{"a 429, which was not acted on", apicsim.Fault{Kind: apicsim.KindStatus, Status: 429, RetryAfter: "0"}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFakeTime(t, tokenservice.Platform, 2, func(t *testing.T, x *exchange) {
				x.sim.Inject(c.fault)
				_, err := x.service.Exchange(context.Background())
				failure(t, err)
				if got := x.sim.Counts().Exchanges; got != c.attempts {
					t.Fatalf("%d requests, want %d", got, c.attempts)
				}
			})
		})
	}
}

func TestPlatform_exchangeNotSentIsRepeated(t *testing.T) {
	x := newExchangeOf(t, tokenservice.Platform, time.Second, 2)
	if err := x.server.Refuse(); err != nil {
		t.Fatal(err)
	}
	_, err := x.service.Exchange(context.Background())
	if got := failure(t, err).Attempts; got != 3 {
		t.Fatalf("%d attempts", got)
	}
}

func TestExchange_wrongAddressNamesItsFields(t *testing.T) {
	for kind, fields := range map[tokenservice.Kind]string{
		tokenservice.Login: "check region and token_url", tokenservice.IAM: "check iam_url and token_url", tokenservice.Platform: "check region and token_url",
	} {
		t.Run(string(kind), func(t *testing.T) {
			x := newExchangeOf(t, kind, time.Second, 0)
			x.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: http.StatusNotFound})
			if _, err := x.service.Exchange(t.Context()); err == nil || !strings.HasSuffix(err.Error(), fields) {
				t.Errorf("error is %v", err)
			}
		})
	}
}
