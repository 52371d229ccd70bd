// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// platformBench is a bench whose issuer is a platform that grants new keys a life. Its
// config has a token, and the key that an operator got it with.
func platformBench(t *testing.T, granted time.Duration) *bench {
	b := newBench(t)
	b.traits = traits{platform: true, noDisabling: true}
	b.issuers["iam-1"].granted = granted
	k := b.issuers["iam-1"].add("by hand", "account", "id-1", false)
	token, err := b.grant(k.value, "iam-1")
	if err != nil {
		t.Fatal(err)
	}
	b.stores(Ref{Config: "a"}, New("a", k.value).WithToken(token), 0)
	return b
}

// keys are the keys of the engine's making that are left.
func (b *bench) keys() int { return len(b.managedKeys()) }

// TestRenew_crashAtEveryPoint kills the process before and after each call and put of a
// renewal. The token lives, and the next process goes on by itself.
func TestRenew_crashAtEveryPoint(t *testing.T) {
	for name, granted := range map[string]time.Duration{"keys live five minutes": byHandLife, "keys live for a year": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				reached := false
				for _, after := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d, after its effect %t", n, after), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { reached = crashRenewal(t, granted, killAt{n, after}) })
					})
				}
				if !reached {
					if n < 6 {
						t.Errorf("only %d points were reached", n)
					}
					return
				}
			}
		})
	}
}

func crashRenewal(t *testing.T, granted time.Duration, kill killAt) (reached bool) {
	b := platformBench(t, granted)
	p := b.boot()
	b.pass(time.Hour)
	p.points, p.killAt = 0, &kill
	b.pass(6 * time.Hour)
	if reached = p.dead; reached {
		if !b.record().Token.Lives() {
			t.Error("no token is stored that lives")
		}
		b.boot()
	}
	p.killAt = nil
	for range 24 {
		b.pass(time.Hour)
		if !b.record().Token.Lives() {
			t.Fatal("no token is stored that lives")
		}
	}
	b.end()
	if rec := b.record(); b.failure != "" || rec.Intent != nil || rec.Candidate != nil || len(rec.Retired) > 0 {
		t.Errorf("%s; what is left is %v", b.failure, b.disk.stored[Ref{Config: "a"}])
	}
	if b.keys() > 2 {
		t.Errorf("%d keys are left", b.keys())
	}
	return reached
}

// TestRenew_absence is how long nobody may be there.
func TestRenew_absence(t *testing.T) {
	for name, c := range map[string]struct {
		granted, away time.Duration
		goesOn        bool
	}{
		"less than the token's life":                      {byHandLife, 90 * time.Minute, true},
		"more than the token's life":                      {byHandLife, 9 * time.Hour, false},
		"more than the token's life, less than the key's": {30 * 24 * time.Hour, 29 * 24 * time.Hour, true},
		"more than the key's life":                        {30 * 24 * time.Hour, 31 * 24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := platformBench(t, c.granted)
				p := b.boot()
				b.pass(6*time.Hour + time.Minute)
				b.mu.Lock()
				b.kill(p)
				b.mu.Unlock()
				if told := time.Until(b.record().CanBeAwayUntil()) > c.away; told != c.goesOn {
					t.Errorf("the record says that it can be away until %s", b.record().CanBeAwayUntil())
				}
				b.pass(c.away)
				b.boot()
				b.pass(LateWriteTime + time.Minute)
				if b.record().Token.Lives() != c.goesOn {
					t.Errorf("there is a token again: %t", !c.goesOn)
				}
				b.end()
			})
		})
	}
}

// TestRenew_dedicated holds that a token of one's own leaves that of the readers, and takes
// a key of its own.
func TestRenew_dedicated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := platformBench(t, byHandLife)
		p := b.boot()
		b.pass(time.Hour)
		shared := b.record().Token
		seen := map[Secret]bool{shared.Value: true}
		for range 3 {
			got, err := p.engine.Renew(t.Context(), Ref{Config: "a"}, "", true)
			if err != nil || seen[got.Value] {
				t.Fatalf("another one is got: %t, error %v", !seen[got.Value], err)
			}
			seen[got.Value] = true
		}
		if got, err := p.engine.Renew(t.Context(), Ref{Config: "a"}, "another", false); err != nil || got.Value != shared.Value {
			t.Errorf("readers get another token, error %v", err)
		}
		if got, err := p.engine.Renew(t.Context(), Ref{Config: "a"}, shared.ID, false); err != nil || got.Value == shared.Value {
			t.Errorf("readers get the token that they have, error %v", err)
		}
		b.pass(time.Hour)
		if b.end(); b.keys() > 2 || b.failure != "" {
			t.Errorf("%d keys are left; %s", b.keys(), b.failure)
		}
	})
}

// TestRenew_keyDeletedBehindItsBack is told of, and another one made.
func TestRenew_keyDeletedBehindItsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := platformBench(t, 365*24*time.Hour)
		p := b.boot()
		b.pass(time.Hour)
		gone := b.tokens[b.record().Current.Value]
		gone.deleted = time.Now()
		b.pass(5*time.Hour + 5*time.Second)
		if s := p.engine.Status(Ref{Config: "a"}); s.Failures == 0 || !strings.Contains(s.Last.Error(), gone.details.ID) {
			t.Errorf("the status says %v", s.Last)
		}
		b.pass(time.Hour)
		if s := p.engine.Status(Ref{Config: "a"}); s.Failures > 0 || b.record().Token.isDue() {
			t.Errorf("it does not go on: %v", s.Last)
		}
		b.end()
	})
}

// TestRenew_usedUp says that a person is needed, and does not go on asking.
func TestRenew_usedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := platformBench(t, byHandLife)
		b.pass(9 * time.Hour)
		p := b.boot()
		b.pass(7 * 24 * time.Hour)
		s := p.engine.Status(Ref{Config: "a"})
		if s.Failures != 1 || !strings.Contains(s.Last.Error(), "write another api_key") {
			t.Errorf("after %d attempts the status says %v", s.Failures, s.Last)
		}
		var usedUp *usedUpError
		if _, err := p.engine.Renew(t.Context(), Ref{Config: "a"}, "", false); !errors.As(err, &usedUp) || !isRefused(err) {
			t.Errorf("a reader is told %v", err)
		}
		b.end()
	})
}

// unanswering is an issuer that makes keys and does not answer.
type unanswering struct{ Issuer }

func (u unanswering) Login(ctx context.Context, at Binding, value Secret) (Session, error) {
	s, err := u.Issuer.Login(ctx, at, value)
	if err != nil {
		return nil, err
	}
	return unansweredSession{s}, nil
}

type unansweredSession struct{ Session }

func (s unansweredSession) Create(ctx context.Context, key NewKey) (Details, Secret, error) {
	_, _, _ = s.Session.Create(ctx, key)
	return Details{}, "", unavailable(true, 0)
}

// TestRenew_creationsWithoutAnswer leave no key behind, neither while the current token is kept
// for that, nor when another is got without a new key because it is near its end.
func TestRenew_creationsWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := platformBench(t, 365*24*time.Hour)
		p := b.boot()
		b.pass(5 * time.Hour)
		first := b.record().Token.Value
		p.engine.issuer = unanswering{p}
		b.pass(2*time.Hour + 30*time.Minute)
		if b.record().Token.Value == first {
			t.Error("the key in reserve was not spent when the token came near its end")
		}
		p.engine.issuer = p
		b.pass(4 * time.Hour)
		if b.end(); b.failure != "" || b.keys() > 2 {
			t.Errorf("%d keys are left; %s", b.keys(), b.failure)
		}
	})
}

// TestRenew_keyOfAnotherUser has what was made for the user before deleted with that user's
// token.
func TestRenew_keyOfAnotherUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := platformBench(t, 365*24*time.Hour)
		b.boot()
		b.pass(time.Hour)
		value := b.fresh("iam-1", "id-2")
		if err := b.operator(func(p *process) error { return p.write("a", value, nil) }); err != nil {
			t.Fatal(err)
		}
		b.pass(time.Hour)
		for _, k := range b.managedKeys() {
			if k.details.Identity != "id-2" {
				t.Errorf("the key %s of %s is left", k.details.ID, k.details.Identity)
			}
		}
		b.end()
	})
}

// forgetful is a store whose claims have each new key refused once, as keys are that are not
// known everywhere yet.
type forgetful struct {
	Store
	seen map[string]bool
}

func (f forgetful) Claim(ctx context.Context, ref Ref, why string) (Claim, error) {
	c, err := f.Store.Claim(ctx, ref, why)
	return forgetfulClaim{c, f.seen}, err
}

type forgetfulClaim struct {
	Claim
	seen map[string]bool
}

func (c forgetfulClaim) Try(ctx context.Context, key Key) (Trial, error) {
	if !c.seen[key.ID] {
		c.seen[key.ID] = true
		return nil, refusal("no such key")
	}
	return c.Claim.Try(ctx, key)
}

// TestRenew_acceptedAfterARefusal is not sent again once it has got a token.
func TestRenew_acceptedAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := platformBench(t, byHandLife)
		p := b.boot()
		b.pass(time.Hour)
		p.engine.store = forgetful{p, make(map[string]bool)}
		begun := time.Now()
		for i := range 3 {
			if _, err := p.engine.Renew(t.Context(), Ref{Config: "a"}, "", true); err != nil {
				t.Errorf("read %d: %v", i, err)
			}
		}
		if took := time.Since(begun); took > youngKeyTime/2 {
			t.Errorf("three reads take %s", took)
		}
		if b.end(); b.failure != "" {
			t.Error(b.failure)
		}
	})
}

// TestRenew_assumedEnd holds that a key is deleted, and not only dropped, whose end the issuer
// never told.
func TestRenew_assumedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := platformBench(t, 365*24*time.Hour)
		b.issuers["iam-1"].tellsNoEnd = true
		old := b.has(true, 0)
		b.pass(3 * 24 * time.Hour)
		by := b.issuers["iam-1"].add("by hand", "account", "id-1", false)
		token, err := b.grant(by.value, "iam-1")
		if err != nil {
			t.Fatal(err)
		}
		rec := New("a", by.value).WithToken(token)
		rec.Brief, rec.Retired = true, []Retired{{Key: *b.keyOf(old)}}
		rec.Retired[0].Binding.Kind = KindPlatform
		b.stores(Ref{Config: "a"}, rec, 0)
		b.boot()
		b.pass(time.Hour)
		if b.end(); b.failure != "" || old.alive() {
			t.Errorf("the key is left: %t; %s", old.alive(), b.failure)
		}
	})
}
