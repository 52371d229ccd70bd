// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package iam_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/iam"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const testKey = "0Kq3+canary/key=Zz9"

// ground is a simulated IAM, and a session of testKey with it.
type ground struct {
	sim     *apicsim.Sim
	server  *apicsim.Server
	client  *iam.Client
	session *iam.Session
	// hangUp closes the client's idle connections.
	hangUp func()
	// iamID and accountID are testKey's.
	iamID, accountID string
}

func newGround(t *testing.T, retries int) *ground {
	t.Helper()
	sim, err := apicsim.New(apicsim.Options{Keys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := apicsim.Start(sim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	own := sim.Keys()[0]
	g := &ground{sim: sim, server: server, iamID: own.IAMID, accountID: own.AccountID}
	// The simulation makes its RSA key on the first login, which may take a while.
	slow, _ := newClient(t, server.URL(), time.Minute, 0)
	if _, err := slow.Login(t.Context(), testKey); err != nil {
		t.Fatal(err)
	}
	g.client, g.hangUp = newClient(t, server.URL(), time.Second, retries)
	g.session = g.login(t, testKey)
	return g
}

func newClient(t *testing.T, url string, timeout time.Duration, retries int) (client *iam.Client, hangUp func()) {
	t.Helper()
	var transports upstream.Transports
	transport, release, err := transports.Acquire("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	client, err = iam.New(iam.Options{URL: url, Transport: transport, RequestTimeout: timeout, MaxRetries: retries})
	if err != nil {
		t.Fatal(err)
	}
	return client, (&http.Client{Transport: transport}).CloseIdleConnections
}

func (g *ground) login(t *testing.T, key upstream.Secret) *iam.Session {
	t.Helper()
	session, err := g.client.Login(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func (g *ground) newKey(name string) iam.NewKey {
	return iam.NewKey{Name: name, Description: "of a test", IAMID: g.iamID, AccountID: g.accountID}
}

// own is testKey as the simulation knows it.
func (g *ground) own() apicsim.KeyInfo { return g.sim.Keys()[0] }

func TestAKeysWholeLife(t *testing.T) {
	g := newGround(t, 0)
	details, err := g.session.Details(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if details.ID != g.own().ID || details.IAMID != g.iamID || details.AccountID != g.accountID || details.EntityTag == "" || details.CreatedAt.IsZero() {
		t.Errorf("details are %+v", details)
	}
	created, value, err := g.session.Create(t.Context(), g.newKey("successor"))
	if err != nil {
		t.Fatal(err)
	}
	if created.Name != "successor" || created.Locked || g.sim.KeyID(string(value)) != g.sim.Keys()[1].KeyID {
		t.Errorf("the new key is %+v", created)
	}
	successor := g.login(t, value)
	if found, err := successor.Find(t.Context(), "successor", g.iamID, g.accountID); err != nil || len(found) != 1 || found[0].ID != created.ID {
		t.Errorf("found %+v, error %v", found, err)
	}
	for range 2 {
		if err := successor.Delete(t.Context(), details.ID); err != nil {
			t.Fatal(err)
		}
	}
	if g.own().Exists() || g.sim.Counts().KeysDeleted != 1 {
		t.Errorf("the old key is %+v", g.own())
	}
	_, err = g.client.Login(t.Context(), testKey)
	if failed := failure(t, err); failed.Outcome != upstream.Refused || failed.Code != "BXNIM0415E" {
		t.Error(err)
	}
}

// calls are the session's methods, as the simulation and the errors name them.
func (g *ground) calls() map[apicsim.KeyCall]func(context.Context) error {
	return map[apicsim.KeyCall]func(context.Context) error{
		apicsim.CallDetails: func(ctx context.Context) error {
			_, err := g.session.Details(ctx)
			return err
		},
		apicsim.CallCreate: func(ctx context.Context) error {
			_, _, err := g.session.Create(ctx, g.newKey("successor"))
			return err
		},
		apicsim.CallList: func(ctx context.Context) error {
			_, err := g.session.Find(ctx, "successor", g.iamID, g.accountID)
			return err
		},
		apicsim.CallDelete: func(ctx context.Context) error { return g.session.Delete(ctx, g.own().ID) },
	}
}

// requireSilent fails if the text gives a secret away in a form that it was sent
// in. It does not print what it searches. Of bearers it looks for what all JWTs
// begin with.
func requireSilent(t *testing.T, text string) {
	t.Helper()
	for _, form := range []string{testKey, url.QueryEscape(testKey), url.PathEscape(testKey), base64.StdEncoding.EncodeToString([]byte(testKey)), "eyJ"} {
		if strings.Contains(text, form) {
			t.Fatal("the text gives a secret away")
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

// TestEveryFaultOfEveryCallEndsInAClearError is the list of what IAM may do wrong
// and what comes of it. An empty reason stands for success. A fault comes before
// the call's effect and after it, which a client can't tell apart.
func TestEveryFaultOfEveryCallEndsInAClearError(t *testing.T) {
	const (
		known   = false
		unknown = true
	)
	all := []apicsim.KeyCall{apicsim.CallDetails, apicsim.CallCreate, apicsim.CallList, apicsim.CallDelete}
	answered := []apicsim.KeyCall{apicsim.CallDetails, apicsim.CallCreate, apicsim.CallList}
	described := []apicsim.KeyCall{apicsim.CallDetails, apicsim.CallCreate}
	changing := []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallDelete}
	deletion := []apicsim.KeyCall{apicsim.CallDelete}
	huge := `{"id":"` + strings.Repeat("x", 200<<10) + `"}`
	cases := []struct {
		fault   apicsim.KeyFault
		calls   []apicsim.KeyCall
		outcome upstream.Outcome
		unknown bool
		reason  string
	}{
		{apicsim.KeyFault{Kind: apicsim.KindReset}, all, upstream.Unavailable, unknown, "broke the connection off"},
		{apicsim.KeyFault{Kind: apicsim.KindResetMidBody}, all, upstream.Unavailable, unknown, "broke the connection off"},
		{apicsim.KeyFault{Kind: apicsim.KindHang}, all, upstream.Unavailable, unknown, "did not answer in time"},
		{apicsim.KeyFault{Kind: apicsim.KindTrickle}, all, upstream.Unavailable, unknown, "did not answer in time"},
		{apicsim.KeyFault{Kind: apicsim.KindEndlessBody}, all, upstream.Unavailable, unknown, "more than 64 KiB"},
		{apicsim.KeyFault{Kind: apicsim.KindNotJSON, Body: huge}, all, upstream.Unavailable, unknown, "more than 64 KiB"},
		{apicsim.KeyFault{Kind: apicsim.KindRedirect}, all, upstream.Unavailable, known, "redirected to another address on the same host (HTTP 307)"},
		{apicsim.KeyFault{Kind: apicsim.KindRedirect, RedirectTo: "https://elsewhere.example/"}, all, upstream.Unavailable, known, "set iam_url to the final address"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 500}, all, upstream.Unavailable, unknown, "failed with HTTP 500"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 503}, all, upstream.Unavailable, unknown, "failed with HTTP 503"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 429}, all, upstream.Unavailable, known, "asks to be called less often"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 401}, all, upstream.Refused, known, "does not let the key's identity"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 403}, all, upstream.Refused, known, "User API key creator on the IAM Identity Service"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 415}, all, upstream.Refused, known, "check iam_url"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 404}, described[:1], upstream.Refused, known, "does not know the API key (HTTP 404)"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 404}, answered[1:], upstream.Refused, known, "has no such address or identity (HTTP 404)"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 404}, deletion, 0, known, ""},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 400}, deletion, upstream.Refused, known, "a locked key can't be deleted"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 409}, deletion, upstream.Refused, known, "a locked key can't be deleted"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 400}, described[1:], upstream.Refused, known, "20 API keys at most"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 409}, described[1:], upstream.Refused, known, "20 API keys at most"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 422}, described[1:], upstream.Refused, known, "20 API keys at most"},
		{apicsim.KeyFault{Kind: apicsim.KindGzipBroken}, all, upstream.Unavailable, unknown, "compression is broken"},
		{apicsim.KeyFault{Kind: apicsim.KindNotJSON}, answered, upstream.Unavailable, unknown, "not JSON"},
		{apicsim.KeyFault{Kind: apicsim.KindEmptyBody}, answered, upstream.Unavailable, unknown, "not JSON"},
		{apicsim.KeyFault{Kind: apicsim.KindNoJWT}, answered, upstream.Unavailable, unknown, "answered "},
		{apicsim.KeyFault{Kind: apicsim.KindErrorBody}, answered, upstream.Unavailable, unknown, "answered "},
		{apicsim.KeyFault{Kind: apicsim.KindJWTNotString}, described, upstream.Unavailable, unknown, "another shape than an API key's"},
		{apicsim.KeyFault{Kind: apicsim.KindJWTNotString}, []apicsim.KeyCall{apicsim.CallList}, upstream.Unavailable, unknown, "without a list"},
		{apicsim.KeyFault{Kind: apicsim.KindNotJWT}, described[:1], upstream.Unavailable, unknown, "can't be one"},
		{apicsim.KeyFault{Kind: apicsim.KindInvalidUTF8}, answered, upstream.Unavailable, unknown, "answered "},
		// Whatever a deletion's answer holds, its status tells.
		{apicsim.KeyFault{Kind: apicsim.KindNotJSON}, deletion, 0, known, ""},
		{apicsim.KeyFault{Kind: apicsim.KindErrorBody}, deletion, 0, known, ""},
		{apicsim.KeyFault{Kind: apicsim.KindGzip}, answered, 0, known, ""},
	}
	for _, call := range all {
		t.Run(string(call), func(t *testing.T) {
			t.Parallel()
			g := newGround(t, 0)
			for _, c := range cases {
				if !slices.Contains(c.calls, call) {
					continue
				}
				for _, after := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s %d%s after %t", c.fault.Kind, c.fault.Status, c.fault.RedirectTo, after), func(t *testing.T) {
						g.renew(t)
						fault := c.fault
						fault.Call, fault.After = call, after
						g.sim.InjectKeyFault(fault)
						before := g.sim.Counts().KeyCalls
						err := g.calls()[call](t.Context())
						// The transport itself repeats a GET whose kept connection turns out to be dead.
						if got := g.sim.Counts().KeyCalls - before; got != 1 && (got != 2 || slices.Contains(changing, call)) {
							t.Errorf("%d requests were sent", got)
						}
						requireFailure(t, err, c.outcome, c.unknown, c.reason)
					})
				}
			}
		})
	}
}

// renew puts everything back to where only testKey is.
func (g *ground) renew(t *testing.T) {
	t.Helper()
	g.sim.ClearKeyFaults()
	g.sim.AddKey(testKey)
	keys := g.sim.Keys()
	for _, k := range keys {
		if k.CreatedByAPI && k.Exists() {
			if err := g.session.Delete(t.Context(), k.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func requireFailure(t *testing.T, err error, outcome upstream.Outcome, unknown bool, reason string) {
	t.Helper()
	if reason == "" {
		if err != nil {
			t.Errorf("the error is %v", err)
		}
		return
	}
	failed := failure(t, err)
	if failed.Outcome != outcome || failed.OutcomeUnknown != unknown || !strings.Contains(err.Error(), reason) {
		t.Errorf("outcome %d, unknown %t: %s", failed.Outcome, failed.OutcomeUnknown, err)
	}
	if !strings.HasPrefix(err.Error(), "the IAM API key service at 127.0.0.1:") {
		t.Errorf("the service and host are not named: %s", err)
	}
}

func TestOnlyACreationIsNotRepeatedIfItsOutcomeIsUnknown(t *testing.T) {
	for call, want := range map[apicsim.KeyCall]int{apicsim.CallDetails: 2, apicsim.CallList: 2, apicsim.CallDelete: 2, apicsim.CallCreate: 1} {
		t.Run(string(call), func(t *testing.T) {
			t.Parallel()
			for _, kind := range []apicsim.FaultKind{apicsim.KindReset, apicsim.KindStatus, apicsim.KindHang} {
				for _, after := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s after %t", kind, after), func(t *testing.T) {
						// A hang that ended late would create a key in the next one's time.
						g := newGround(t, 2)
						g.sim.InjectKeyFault(apicsim.KeyFault{Call: call, After: after, Kind: kind, Times: 1})
						err := g.calls()[call](t.Context())
						if got := g.sim.Counts().KeyCalls; got != want {
							t.Errorf("%d requests were sent", got)
						}
						if call != apicsim.CallCreate {
							if err != nil {
								t.Error(err)
							}
							return
						}
						if failed := failure(t, err); !failed.OutcomeUnknown || failed.Attempts != 1 {
							t.Errorf("%d attempts, unknown %t", failed.Attempts, failed.OutcomeUnknown)
						}
						if created := g.sim.Counts().KeysCreated == 1; created != after {
							t.Errorf("a key was created is %t", created)
						}
					})
				}
			}
		})
	}
}

func TestACreationThatNeverReachedIAMIsKnownToHaveHadNoEffect(t *testing.T) {
	g := newGround(t, 1)
	// A kept connection that turns out to be dead leaves open what was sent on it.
	g.hangUp()
	if err := g.server.Refuse(); err != nil {
		t.Fatal(err)
	}
	_, _, err := g.session.Create(t.Context(), g.newKey("successor"))
	if failed := failure(t, err); failed.OutcomeUnknown || failed.Attempts != 2 {
		t.Fatalf("%d attempts, unknown %t: %s", failed.Attempts, failed.OutcomeUnknown, err)
	}
}

func TestACreationThatIAMIsTooBusyForIsRepeated(t *testing.T) {
	g := newGround(t, 2)
	g.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallCreate, Kind: apicsim.KindStatus, Status: 429, RetryAfter: "0", Times: 2})
	if _, _, err := g.session.Create(t.Context(), g.newKey("successor")); err != nil {
		t.Fatal(err)
	}
	if got := g.sim.Counts(); got.KeyCalls != 3 || got.KeysCreated != 1 {
		t.Fatalf("counts are %+v", got)
	}
}

func TestAKeyWhoseCreationWasAnsweredToNobodyIsFoundByItsName(t *testing.T) {
	g := newGround(t, 0)
	g.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallCreate, After: true, Kind: apicsim.KindReset, Times: 1})
	_, _, err := g.session.Create(t.Context(), g.newKey("lost"))
	failure(t, err)
	found, err := g.session.Find(t.Context(), "lost", g.iamID, g.accountID)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %+v, error %v", found, err)
	}
	if err := g.session.Delete(t.Context(), found[0].ID); err != nil {
		t.Fatal(err)
	}
	if found, err := g.session.Find(t.Context(), "lost", g.iamID, g.accountID); err != nil || len(found) != 0 {
		t.Fatalf("then found %+v, error %v", found, err)
	}
}

func TestAllKeysOfExactlyThatNameAreFoundOnAllPages(t *testing.T) {
	g := newGround(t, 0)
	var want []string
	for n := range 70 {
		name := []string{"the-name", "the-name-2", "The-name", ""}[n%4]
		g.sim.AddLimitedKey(fmt.Sprint("key-", n), apicsim.KeyOptions{Name: name})
	}
	g.sim.AddLimitedKey("another's", apicsim.KeyOptions{Name: "the-name", IAMID: "IBMid-2"})
	for _, k := range g.sim.Keys() {
		if k.Name == "the-name" && k.IAMID == g.iamID {
			want = append(want, k.ID)
		}
	}
	for _, accountID := range []string{g.accountID, ""} {
		found, err := g.session.Find(t.Context(), "the-name", g.iamID, accountID)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range found {
			got = append(got, k.ID)
		}
		if !slices.Equal(got, want) || len(want) != 18 {
			t.Errorf("found %d of %d keys", len(got), len(want))
		}
	}
	if got := g.sim.Counts().KeyCalls; got != 8 {
		t.Errorf("71 keys twice took %d calls", got)
	}
}

func TestIAMsOwnRefusalsAreTurnedIntoWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*ground)
		call    apicsim.KeyCall
		code    string
		says    []string
	}{
		"a locked key": {
			func(g *ground) { g.sim.LockKey(testKey) }, apicsim.CallDelete, "conflict",
			[]string{"refused to delete the API key (HTTP 409, conflict)", "unlock it in IBM Cloud", "IBM's support finds the request as "},
		},
		"too many keys": {
			func(g *ground) {
				for n := range 19 {
					g.sim.AddKey(fmt.Sprint("key-", n))
				}
			}, apicsim.CallCreate, "BXNIM0151E",
			[]string{"refused to create an API key (HTTP 422, BXNIM0151E)", "delete those that nobody uses"},
		},
		"a key that was deleted meanwhile": {
			func(g *ground) { g.sim.RevokeKey(testKey) }, apicsim.CallDetails, "BXNIM0102E",
			[]string{"does not know the API key (HTTP 404, BXNIM0102E)", "write the config again with api_key"},
		},
		"another identity's keys": {
			func(g *ground) { g.iamID = "IBMid-2" }, apicsim.CallCreate, "forbidden",
			[]string{"does not let the key's identity create an API key (HTTP 403, forbidden)", "User API key creator", "Operator"},
		},
		"a list of another identity's": {
			func(g *ground) { g.iamID = "IBMid-2" }, apicsim.CallList, "forbidden",
			[]string{"does not let the key's identity list its API keys (HTTP 403, forbidden)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t, 2)
			c.prepare(g)
			err := g.calls()[c.call](t.Context())
			failed := failure(t, err)
			if failed.Outcome != upstream.Refused || failed.Code != c.code || failed.Attempts != 1 || failed.OutcomeUnknown {
				t.Errorf("the error is %+v", failed)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %s", text, err)
				}
			}
		})
	}
}

func TestSession_errorsNameTheRequest(t *testing.T) {
	g := newGround(t, 0)
	for call, run := range g.calls() {
		for _, fault := range []apicsim.KeyFault{
			{Call: call, Kind: apicsim.KindStatus, Status: 403, Body: "{}"},
			{Call: call, Kind: apicsim.KindStatus, Status: 500, Body: "{}"},
		} {
			g.sim.InjectKeyFault(fault)
			if err := run(t.Context()); failure(t, err).RequestID == "" || !strings.Contains(err.Error(), "; IBM's support finds the request as ") {
				t.Errorf("%s: the error is %s", call, err)
			}
			fault.Body = "" // Then it names the request after the key or the bearer.
			g.sim.InjectKeyFault(fault)
			if err := run(t.Context()); failure(t, err).RequestID != "" {
				t.Errorf("%s: the request is named after a secret", call)
			}
		}
	}
}

// TestSession_newKeyIsNoRequestID is about the one secret that no request held.
func TestSession_newKeyIsNoRequestID(t *testing.T) {
	const value = "0Kq3-canary-fresh-Zz9"
	s := &script{answers: func(int, *http.Request) (int, string) { return http.StatusCreated, keyJSON("m", "i", "a", value) }, transactionID: value}
	_, _, err := newScriptedSession(t, s).Create(t.Context(), iam.NewKey{Name: "n", IAMID: "i", AccountID: "a"})
	if failed := failure(t, err); failed.RequestID != "" || strings.Contains(err.Error(), value) {
		t.Error("the error tells the new key")
	}
}

func TestADeletionWantsAnIDThatCanBeOne(t *testing.T) {
	g := newGround(t, 0)
	for _, id := range []string{"", ".", "..", "../details", "a b", "a\nb", "?x", testKey, strings.Repeat("x", 129)} {
		failed := failure(t, g.session.Delete(t.Context(), id))
		if failed.Attempts != 0 || failed.OutcomeUnknown {
			t.Errorf("%d attempts", failed.Attempts)
		}
	}
	if got := g.sim.Counts().KeyCalls; got != 0 {
		t.Fatalf("%d requests were sent", got)
	}
}

func TestALoginThatFailsNamesTheFieldToCheck(t *testing.T) {
	g := newGround(t, 0)
	for _, fault := range []apicsim.Fault{{Kind: apicsim.KindRedirect}, {Kind: apicsim.KindStatus, Status: 404}, {Kind: apicsim.KindStatus, Status: 418}} {
		g.sim.Inject(fault)
		_, err := g.client.Login(t.Context(), testKey)
		if failure(t, err); !strings.Contains(err.Error(), "iam_url") || strings.Contains(err.Error(), "token_url") {
			t.Errorf("the error is %s", err)
		}
	}
}

func TestAURLThatDoesNotParseIsNamedByItsField(t *testing.T) {
	if _, err := iam.New(iam.Options{URL: "http://%zz"}); err == nil || err.Error() != "iam_url does not parse" {
		t.Fatalf("the error is %v", err)
	}
}

func TestASessionIsNotPrintedWithItsSecrets(t *testing.T) {
	g := newGround(t, 0)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		requireSilent(t, fmt.Sprintf(verb, *g.session)+fmt.Sprintf(verb, g.session))
	}
}

// script is an IAM that answers the key API with what a test writes, and notes
// what it was asked.
type script struct {
	answers func(n int, r *http.Request) (status int, body string)
	asked   []string
	// transactionID is what the answers call the requests.
	transactionID string
}

// newScriptedSession logs in at a real simulation and calls a scripted key API.
func newScriptedSession(t *testing.T, s *script) *iam.Session {
	t.Helper()
	sim, err := apicsim.New(apicsim.Options{Keys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/identity/token", sim)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.asked = append(s.asked, r.Method+" "+r.RequestURI+" "+r.Header.Get("Content-Type")+" "+string(body))
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer eyJ") || (r.URL.Path == "/v1/apikeys/details") != (r.Header.Get("IAM-ApiKey") == testKey) {
			t.Errorf("%s carries other credentials", r.RequestURI)
		}
		status, text := s.answers(len(s.asked), r)
		w.Header().Set("Transaction-Id", s.transactionID)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	client, _ := newClient(t, server.URL, time.Minute, 0)
	session, err := client.Login(t.Context(), testKey)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func TestRequestsAreMadeToTheLetter(t *testing.T) {
	s := &script{answers: func(int, *http.Request) (int, string) { return http.StatusTeapot, "" }}
	session := newScriptedSession(t, s)
	_, _ = session.Details(t.Context())
	_, _, _ = session.Create(t.Context(), iam.NewKey{Name: "n", Description: "d", IAMID: "i", AccountID: "a"})
	_, _, _ = session.Create(t.Context(), iam.NewKey{Name: "n", IAMID: "i"})
	_, _ = session.Find(t.Context(), "n", "i&d", "a")
	_ = session.Delete(t.Context(), "ApiKey-1@x:y")
	want := []string{
		"GET /v1/apikeys/details  ",
		`POST /v1/apikeys application/json {"name":"n","description":"d","iam_id":"i","account_id":"a"}`,
		`POST /v1/apikeys application/json {"name":"n","iam_id":"i"}`,
		"GET /v1/apikeys?account_id=a&iam_id=i%26d&pagesize=20  ",
		"DELETE /v1/apikeys/ApiKey-1@x:y  ",
	}
	if !slices.Equal(s.asked, want) {
		t.Fatalf("asked %q", s.asked)
	}
}

func keyJSON(name, iamID, accountID, value string) string {
	body, _ := json.Marshal(map[string]any{"id": "ApiKey-1", "name": name, "iam_id": iamID, "account_id": accountID, "apikey": value})
	return string(body)
}

func TestAKeyOtherThanTheOneAskedForIsNotTaken(t *testing.T) {
	for name, body := range map[string]string{
		"another name":     keyJSON("m", "i", "a", "v"),
		"another identity": keyJSON("n", "j", "a", "v"),
		"another account":  keyJSON("n", "i", "b", "v"),
		"no value":         keyJSON("n", "i", "a", ""),
		"half an answer":   keyJSON("n", "i", "a", "v")[:20],
	} {
		t.Run(name, func(t *testing.T) {
			session := newScriptedSession(t, &script{answers: func(int, *http.Request) (int, string) { return http.StatusCreated, body }})
			key, value, err := session.Create(t.Context(), iam.NewKey{Name: "n", IAMID: "i", AccountID: "a"})
			if failed := failure(t, err); key != nil || value != "" || !failed.OutcomeUnknown || failed.Attempts != 1 {
				t.Fatalf("the error is %+v", failed)
			}
		})
	}
}

func TestANextPageOnAnotherHostIsAskedForAtThisOne(t *testing.T) {
	s := &script{answers: func(n int, _ *http.Request) (int, string) {
		if n == 1 {
			return http.StatusOK, `{"apikeys":[],"next":"https://elsewhere.example/stolen?pagetoken=p%261&iam_id=j"}`
		}
		return http.StatusOK, `{"apikeys":[` + keyJSON("n", "i", "a", "") + `]}`
	}}
	found, err := newScriptedSession(t, s).Find(t.Context(), "n", "i", "a")
	if err != nil || len(found) != 1 {
		t.Fatalf("found %+v, error %v", found, err)
	}
	if want := "GET /v1/apikeys?account_id=a&iam_id=i&pagesize=20&pagetoken=p%261  "; s.asked[1] != want {
		t.Fatalf("asked %q", s.asked[1])
	}
}

func TestAListWithoutEndIsGivenUp(t *testing.T) {
	s := &script{answers: func(n int, _ *http.Request) (int, string) {
		return http.StatusOK, `{"apikeys":[],"next":"?pagetoken=` + strconv.Itoa(n) + `"}`
	}}
	_, err := newScriptedSession(t, s).Find(t.Context(), "n", "i", "a")
	if failure(t, err); len(s.asked) != 50 || !strings.Contains(err.Error(), "does not end") {
		t.Fatalf("%d pages: %s", len(s.asked), err)
	}
}

func TestAKeyThatIsNotTheIdentitysIsNotFoundEvenIfItIsListed(t *testing.T) {
	s := &script{answers: func(int, *http.Request) (int, string) {
		return http.StatusOK, `{"apikeys":[` + keyJSON("n", "j", "a", "") + `,` + keyJSON("n", "i", "b", "") + `]}`
	}}
	if found, err := newScriptedSession(t, s).Find(t.Context(), "n", "i", "a"); err != nil || len(found) != 0 {
		t.Fatalf("found %+v, error %v", found, err)
	}
}

func TestAKeyNamedAfterItsValueIsReadWithoutItsName(t *testing.T) {
	s := &script{answers: func(int, *http.Request) (int, string) {
		return http.StatusOK, keyJSON("my "+testKey, "i", "a", testKey)
	}}
	key, err := newScriptedSession(t, s).Details(t.Context())
	if err != nil || key.Name != "" {
		t.Fatalf("error %v", err)
	}
	requireSilent(t, fmt.Sprintf("%+v", key))
}
