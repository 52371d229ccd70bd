// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/keyissuer"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// tokenLife is that of the simulation's tokens.
const tokenLife = time.Hour

func TestPlatformSession_createFindAndDelete(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		g.sim.SetPlatformKeys(apicsim.PlatformKeys{SingleUse: true, MaxTTL: 48 * time.Hour})
		wanted := g.newKey("vault-apic-0123456789abc-TOKEN-eu_West.1")
		wanted.TTL = 24 * time.Hour
		before := time.Now().UTC()
		created, value, err := g.session.Create(t.Context(), wanted)
		if err != nil {
			t.Fatal(err)
		}
		want := rotation.Details{
			ID: g.sim.Keys()[1].ID, Name: "vault-apic-0123456789abc-token-eu-west-1", Identity: g.own.Identity,
			CreatedAt: before, ExpiresAt: before.Truncate(time.Second).Add(24 * time.Hour), Description: "of a test",
		}
		if created != want || g.sim.KeyID(string(value)) != g.sim.Keys()[1].KeyID {
			t.Errorf("created %+v, want %+v", created, want)
		}
		if got, err := g.session.Get(t.Context(), created.ID); err != nil || got != want {
			t.Errorf("got %+v, error %v", got, err)
		}
		// Lists are asked for what counts there.
		want.Description = ""
		if found, err := g.session.Find(t.Context(), "vault-apic-0123456789abc-TOKEN", g.own); err != nil || len(found) != 1 || found[0] != want {
			t.Errorf("found %+v, error %v", found, err)
		}
		if err := g.session.Delete(t.Context(), created.ID); err != nil || g.sim.Keys()[1].Exists() {
			t.Errorf("after its deletion the key is %+v, error %v", g.sim.Keys()[1], err)
		}
		for _, call := range []error{g.session.Delete(t.Context(), created.ID), errorOf(g.session.Get(t.Context(), created.ID))} {
			if failed := failure(t, call); !errors.Is(call, rotation.ErrNoSuchKey) || failed.Status != 404 || failed.Outcome != upstream.Refused {
				t.Errorf("the error is %v", call)
			}
		}
	})
}

func TestPlatformLogin_makesNoCall(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		g.line.Sever()
		details, err := g.session.Details(t.Context())
		if err != nil || details != (rotation.Details{Identity: g.own.Identity}) {
			t.Errorf("details are %+v, error %v", details, err)
		}
		if got := g.sim.Counts(); got.KeyCalls != 0 || got.Exchanges != 1 {
			t.Errorf("counts are %+v", got)
		}
		if err := g.session.Disable(t.Context(), g.key().ID); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestPlatformLogin_acceptsATokenWithItsIdentity(t *testing.T) {
	issuer := &keyissuer.Platform{Transports: &upstream.Transports{}}
	at := rotation.Binding{Issuer: "https://127.0.0.1/api"}
	for token, says := range map[rotation.Secret]string{
		testKey: "is not a JWT",
		"eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJpZCJ9.AAAA": "no sub claim",
		"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIifQ.AAAA":   "no sub claim",
	} {
		session, err := issuer.Login(t.Context(), at, token)
		if requireNotSent(t, says, err); session != nil {
			t.Error("there is a session")
		}
	}
}

func TestPlatformLogin_namesTheFieldThatIsWrong(t *testing.T) {
	requireFieldNamed(t, &keyissuer.Platform{Transports: &upstream.Transports{}}, "token_url")
}

func TestPlatformSession_isOfOneUserAlone(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		g.sim.AddLimitedKey("another's", apicsim.KeyOptions{Name: "successor", IAMID: "user-2"})
		if found, err := g.session.Find(t.Context(), "successor", g.own); err != nil || len(found) != 0 {
			t.Errorf("found %+v, error %v", found, err)
		}
		g.own.Identity = "user-2"
		for _, call := range []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallList} {
			requireNotSent(t, "of another user", g.calls()[call](t.Context()))
		}
		if got := g.sim.Counts(); got.KeyCalls != 1 || got.KeysCreated != 0 {
			t.Errorf("counts are %+v", got)
		}
	})
}

func TestPlatformSession_findsOnAllPages(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		for n := range 70 {
			name := []string{"the-name", "the-name-2", "not-the-name", "the-nam"}[n%4]
			g.sim.AddLimitedKey(fmt.Sprint("key-", n), apicsim.KeyOptions{Name: name})
		}
		found, err := g.session.Find(t.Context(), "The_name", g.own)
		if err != nil || len(found) != 36 {
			t.Fatalf("found %d keys, error %v", len(found), err)
		}
		for _, k := range found {
			if !strings.HasPrefix(k.Name, "the-name") || k.Identity != g.own.Identity {
				t.Errorf("found %+v", k)
			}
		}
		if got := g.sim.Counts().KeyCalls; got != 4 {
			t.Errorf("71 keys took %d calls", got)
		}
		if _, err := g.session.Find(t.Context(), "", g.own); err == nil {
			t.Error("all keys were found")
		}
	})
}

func TestPlatformSession_aDescriptionIsThereAlways(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		created, _, err := g.session.Create(t.Context(), rotation.NewKey{Name: "n", Of: g.own})
		if err != nil || !strings.Contains(created.Description, "Vault") {
			t.Errorf("created %+v, error %v", created, err)
		}
	})
}

func TestPlatformSession_timesOfATokenAreNotTheKeys(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		g.sim.SetPlatformKeys(apicsim.PlatformKeys{TokenTimes: true})
		time.Sleep(28 * time.Minute)
		created := g.create(t, "successor")
		got, err := g.session.Get(t.Context(), created.ID)
		if err != nil || got != created || !created.ExpiresAt.IsZero() || !created.CreatedAt.Equal(time.Now()) {
			t.Errorf("got %+v, created %+v, error %v", got, created, err)
		}
		if found, err := g.session.Find(t.Context(), "successor", g.own); err != nil || len(found) != 1 || !found[0].ExpiresAt.IsZero() {
			t.Errorf("found %+v, error %v", found, err)
		}
	})
}

func TestPlatformSession_anIDThatCannotBeOneIsNotAskedFor(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		requireIDsChecked(t, g)
	})
}

func TestPlatformSession_isNotPrintedWithItsSecrets(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		requireUnprinted(t, g.session)
	})
}

func TestPlatformSession_itsTimeIsThePlatforms(t *testing.T) {
	onPlatform(t, 0, func(t *testing.T, g *ground) {
		g.sim.SetClockSkew(-10 * time.Minute)
		g.create(t, "successor")
		if off := time.Since(g.session.Now()).Round(time.Minute); off != 10*time.Minute {
			t.Errorf("the session's time is %s off", off)
		}
	})
}
