// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/keyissuer"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

func TestIAMSession_createFindAndDelete(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		details, err := g.session.Details(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if details.ID != g.key().ID || details.Identity != g.own.Identity || details.AccountID != g.own.AccountID || details.CreatedAt.IsZero() {
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
		if found, err := successor.Find(t.Context(), "successor", g.own); err != nil || len(found) != 1 || found[0] != created {
			t.Errorf("found %+v, error %v", found, err)
		}
		if got, err := successor.Get(t.Context(), created.ID); err != nil || got != created {
			t.Errorf("got %+v, error %v", got, err)
		}
		if err := successor.Delete(t.Context(), details.ID); err != nil {
			t.Fatal(err)
		}
		if g.key().Exists() || g.sim.Counts().KeysDeleted != 1 {
			t.Errorf("the old key is %+v", g.key())
		}
	})
}

func TestIAMSession_anUnknownKeyIsToldByEachCall(t *testing.T) {
	for _, call := range []apicsim.KeyCall{apicsim.CallDetails, apicsim.CallGet, apicsim.CallDisable, apicsim.CallDelete} {
		t.Run(string(call), func(t *testing.T) {
			onGround(t, 2, func(t *testing.T, g *ground) {
				g.sim.RevokeKey(testKey)
				err := g.calls()[call](t.Context())
				if !errors.Is(err, rotation.ErrNoSuchKey) || errors.Is(err, keyissuer.ErrDisabled) {
					t.Errorf("the error is %v", err)
				}
				if failed := failure(t, err); failed.Status != 404 || failed.Code != "BXNIM0102E" || failed.Outcome != upstream.Refused {
					t.Errorf("the error is %+v", failed)
				}
			})
		})
	}
}

func TestIAMLogin_tellsTheKeysState(t *testing.T) {
	for name, c := range map[string]struct {
		prepare    func(*apicsim.Sim)
		state, not error
		code       string
	}{
		"deleted":  {func(s *apicsim.Sim) { s.RevokeKey(testKey) }, rotation.ErrNoSuchKey, keyissuer.ErrDisabled, "BXNIM0415E"},
		"disabled": {func(s *apicsim.Sim) { s.DisableKey(testKey) }, keyissuer.ErrDisabled, rotation.ErrNoSuchKey, "BXNIM0462E"},
	} {
		t.Run(name, func(t *testing.T) {
			onGround(t, 2, func(t *testing.T, g *ground) {
				c.prepare(g.sim)
				_, err := g.issuer.Login(t.Context(), g.own, testKey)
				if !errors.Is(err, c.state) || errors.Is(err, c.not) {
					t.Errorf("the error is %v", err)
				}
				if failed := failure(t, err); failed.Code != c.code || failed.Outcome != upstream.Refused || failed.Attempts != 1 {
					t.Errorf("the error is %+v", failed)
				}
			})
		})
	}
}

func TestIAMLogin_aFailureTellsNothingOfTheKey(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		for _, status := range []int{400, 401, 404, 500} {
			g.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: status})
			_, err := g.issuer.Login(t.Context(), g.own, testKey)
			if failure(t, err); errors.Is(err, rotation.ErrNoSuchKey) || errors.Is(err, keyissuer.ErrDisabled) {
				t.Errorf("HTTP %d: the error is %v", status, err)
			}
		}
	})
}

func TestIAMLogin_failureNamesTheFieldToCheck(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		for _, fault := range []apicsim.Fault{{Kind: apicsim.KindRedirect}, {Kind: apicsim.KindStatus, Status: 404}, {Kind: apicsim.KindStatus, Status: 418}} {
			g.sim.Inject(fault)
			_, err := g.issuer.Login(t.Context(), g.own, testKey)
			if failure(t, err); !strings.Contains(err.Error(), "iam_url") || strings.Contains(err.Error(), "token_url") {
				t.Errorf("the error is %s", err)
			}
		}
	})
}

func TestIAMLogin_namesTheFieldThatIsWrong(t *testing.T) {
	requireFieldNamed(t, &keyissuer.IAM{Transports: &upstream.Transports{}}, "iam_url")
}

func TestIAMSession_aDisabledKeyStaysSo(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		created := g.create(t, "successor")
		for range 2 {
			if err := g.session.Disable(t.Context(), created.ID); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := g.session.Get(t.Context(), created.ID); err != nil || !got.Disabled {
			t.Errorf("the key is %+v, error %v", got, err)
		}
		if err := g.session.Delete(t.Context(), created.ID); err != nil {
			t.Errorf("a disabled key can't be deleted: %v", err)
		}
	})
}

func TestIAMSession_aShortenedNameIsFoundByItsPrefix(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		g.sim.SetNameLimit(30)
		created := g.create(t, "vault-apic-0123456789abc-token-a-config-of-a-long-name")
		if created.ID != g.sim.Keys()[1].ID || created.Name != "vault-apic-0123456789abc-token" {
			t.Fatalf("the key is %+v", created)
		}
		for prefix, want := range map[string]int{"vault-apic-0123456789abc-token": 1, "vault-apic-0123456789abc-": 1, "vault-apic-0123456789abd-": 0, "apic-": 0} {
			if found, err := g.session.Find(t.Context(), prefix, g.own); err != nil || len(found) != want {
				t.Errorf("by %s found %+v, error %v", prefix, found, err)
			}
		}
	})
}

func TestIAMSession_noPrefixIsNotEveryKey(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		found, err := g.session.Find(t.Context(), "", g.own)
		if failed := failure(t, err); found != nil || failed.Attempts != 0 {
			t.Fatalf("found %+v, error %v", found, err)
		}
	})
}

func TestIAMSession_lostCreationIsFoundByName(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		g.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallCreate, After: true, Kind: apicsim.KindReset, Times: 1})
		_, _, err := g.session.Create(t.Context(), g.newKey("lost"))
		failure(t, err)
		found, err := g.session.Find(t.Context(), "lost", g.own)
		if err != nil || len(found) != 1 {
			t.Fatalf("found %+v, error %v", found, err)
		}
		if err := g.session.Delete(t.Context(), found[0].ID); err != nil {
			t.Fatal(err)
		}
		if found, err := g.session.Find(t.Context(), "lost", g.own); err != nil || len(found) != 0 {
			t.Fatalf("then found %+v, error %v", found, err)
		}
	})
}

func TestIAMSession_findsAPrefixOnAllPages(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		var want []string
		for n := range 70 {
			name := []string{"the-name", "the-name-2", "The-name", "the-nam"}[n%4]
			g.sim.AddLimitedKey(fmt.Sprint("key-", n), apicsim.KeyOptions{Name: name})
		}
		g.sim.AddLimitedKey("another's", apicsim.KeyOptions{Name: "the-name", IAMID: "IBMid-2"})
		for _, k := range g.sim.Keys() {
			if strings.HasPrefix(k.Name, "the-name") && k.IAMID == g.own.Identity {
				want = append(want, k.ID)
			}
		}
		for _, of := range []rotation.Binding{g.own, {Identity: g.own.Identity}} {
			found, err := g.session.Find(t.Context(), "the-name", of)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, k := range found {
				got = append(got, k.ID)
			}
			if !slices.Equal(got, want) || len(want) != 36 {
				t.Errorf("found %d of %d keys", len(got), len(want))
			}
		}
		if got := g.sim.Counts().KeyCalls; got != 8 {
			t.Errorf("71 keys twice took %d calls", got)
		}
	})
}

func TestIAMSession_anIDThatCannotBeOneIsNotAskedFor(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		requireIDsChecked(t, g, func(id string) error { return g.session.Disable(t.Context(), id) })
	})
}

func TestIAMSession_carriesTheKeysSettings(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		g.sim.AddLimitedKey("second", apicsim.KeyOptions{Name: "n", Description: "d", Life: time.Hour, ActionWhenLeaked: "disable", SupportSessions: true, Locked: true})
		before := time.Now().UTC()
		got, err := g.session.Get(t.Context(), g.sim.Keys()[1].ID)
		if err != nil {
			t.Fatal(err)
		}
		// IAM tells whole minutes: of the creation's the end counts.
		created := before.Truncate(time.Minute).Add(time.Minute)
		want := rotation.Details{
			ID: g.sim.Keys()[1].ID, Name: "n", AccountID: g.own.AccountID, Identity: g.own.Identity, Locked: true,
			CreatedAt: created, ExpiresAt: created.Add(59 * time.Minute), Description: "d", ActionWhenLeaked: "disable", SupportSessions: true,
		}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestIAMSession_isNotPrintedWithItsSecrets(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		requireUnprinted(t, g.session)
	})
}

func TestIAMSession_aSuccessorHasTheKeysSettings(t *testing.T) {
	onGround(t, 0, func(t *testing.T, g *ground) {
		like := rotation.Details{Description: "d", ActionWhenLeaked: "delete", SupportSessions: true}
		made, _, err := g.session.Create(t.Context(), rotation.NewKey{Name: "n", Of: g.own, Like: like, TTL: 90 * 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		life := made.ExpiresAt.Sub(made.CreatedAt)
		if made.Description != "d" || made.ActionWhenLeaked != "delete" || !made.SupportSessions || life < 90*24*time.Hour-2*time.Minute || life > 90*24*time.Hour+2*time.Minute {
			t.Errorf("made is %+v", made)
		}
	})
}
