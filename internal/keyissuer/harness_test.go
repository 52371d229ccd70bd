// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/keyissuer"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/pipenet"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const testKey = "0Kq3+canary/key=Zz9"

// ground is a simulated issuer on a network in memory, and a session of testKey with
// it.
type ground struct {
	sim     *apicsim.Sim
	line    *pipenet.Line
	issuer  rotation.Issuer
	session rotation.Session
	// own is whose key testKey is, and where.
	own rotation.Binding
	// service is what errors call the issuer.
	service string
}

// onGround runs a test with IAM in fake time, with retries attempts after the first one.
func onGround(t *testing.T, retries int, test func(*testing.T, *ground)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		key := sim.Keys()[0]
		g := &ground{
			sim: sim, own: rotation.Binding{Issuer: "http://127.0.0.1", Identity: key.IAMID, AccountID: key.AccountID},
			service: "IAM API key service",
		}
		g.issuer, g.line = newIssuer(t, sim, retries)
		g.session = g.login(t, testKey)
		test(t, g)
	})
}

// onPlatform is onGround with API Connect's platform.
func onPlatform(t *testing.T, retries int, test func(*testing.T, *ground)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		token := platformToken(t, sim)
		user, _ := tokenservice.Subject(token)
		g := &ground{
			sim: sim, own: rotation.Binding{Kind: rotation.KindPlatform, Issuer: "http://127.0.0.1/api", Identity: user},
			service: "platform API key service",
		}
		g.issuer, g.line = newPlatform(t, sim, retries)
		g.session = g.login(t, token)
		test(t, g)
	})
}

// platformToken exchanges testKey at the simulated platform.
func platformToken(t *testing.T, sim *apicsim.Sim) rotation.Secret {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/api/token", strings.NewReader(`{"grant_type":"api_key","api_key":"`+testKey+`"}`))
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	sim.ServeHTTP(w, r)
	var granted struct {
		Token rotation.Secret `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &granted); err != nil || granted.Token == "" {
		t.Fatalf("no token was granted: HTTP %d", w.Code)
	}
	return granted.Token
}

func newSim(t *testing.T) *apicsim.Sim {
	t.Helper()
	key, err := apicsim.SharedKey()
	if err != nil {
		t.Fatal(err)
	}
	sim, err := apicsim.New(apicsim.Options{Keys: []string{testKey}, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return sim
}

// newTransports serves handler for all addresses, in memory.
func newTransports(t *testing.T, handler http.Handler) (*upstream.Transports, *pipenet.Line) {
	network := pipenet.Serve(handler)
	t.Cleanup(network.Close)
	line := network.Line()
	return &upstream.Transports{DialContext: line.Dial}, line
}

func newIssuer(t *testing.T, handler http.Handler, retries int) (*keyissuer.IAM, *pipenet.Line) {
	transports, line := newTransports(t, handler)
	return &keyissuer.IAM{Transports: transports, RequestTimeout: time.Second, MaxRetries: retries}, line
}

func newPlatform(t *testing.T, handler http.Handler, retries int) (*keyissuer.Platform, *pipenet.Line) {
	transports, line := newTransports(t, handler)
	return &keyissuer.Platform{Transports: transports, RequestTimeout: time.Second, MaxRetries: retries}, line
}

func (g *ground) login(t *testing.T, key rotation.Secret) rotation.Session {
	t.Helper()
	session, err := g.issuer.Login(t.Context(), g.own, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

func (g *ground) newKey(name string) rotation.NewKey {
	return rotation.NewKey{Name: name, Of: g.own, Like: rotation.Details{Description: "of a test"}}
}

func (g *ground) create(t *testing.T, name string) rotation.Details {
	t.Helper()
	created, _, err := g.session.Create(t.Context(), g.newKey(name))
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// key is testKey as the simulation knows it.
func (g *ground) key() apicsim.KeyInfo { return g.sim.Keys()[0] }

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
			_, err := g.session.Find(ctx, "successor", g.own)
			return err
		},
		apicsim.CallGet: func(ctx context.Context) error {
			_, err := g.session.Get(ctx, g.key().ID)
			return err
		},
		apicsim.CallDisable: func(ctx context.Context) error { return g.session.Disable(ctx, g.key().ID) },
		apicsim.CallDelete:  func(ctx context.Context) error { return g.session.Delete(ctx, g.key().ID) },
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
	requireSilent(t, fmt.Sprintf("%s %+v %#v %+v", err, err, err, *failed))
	return failed
}
