// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

func issuedTokenOf(life, refreshBefore time.Duration) *IssuedToken {
	return NewIssuedToken(&tokenservice.Token{ID: "token", ExpiresAt: time.Now().Add(life)}, refreshBefore)
}

func TestIssuedToken_dueRefreshBeforeItsEnd(t *testing.T) {
	for _, c := range []struct {
		name                        string
		life, refreshBefore, before time.Duration
		ttl, rotationPeriod         int64
	}{
		{"as configured", time.Hour, 5 * time.Minute, 5 * time.Minute, 3300, 3300},
		{"a quarter of its life by default", time.Hour, 0, 15 * time.Minute, 2700, 2700},
		{"half of its life at most", time.Hour, 2 * time.Hour, 30 * time.Minute, 1800, 1800},
		{"a second at least", time.Hour, time.Millisecond, time.Second, 3599, 3599},
		{"a second at least by default", 2500 * time.Millisecond, 0, time.Second, 2, 2},
		{"in whole seconds, rounded up", 10*time.Second + time.Millisecond, 5 * time.Second, 5 * time.Second, 6, 6},
		{"half of a life shorter than the minimum", time.Second, 0, time.Second / 2, 1, 1},
		{"even if it hardly lives", 3, 0, 1, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				token := issuedTokenOf(c.life, c.refreshBefore)
				if got := token.ExpiresAt.Sub(token.DueAt); got != c.before {
					t.Errorf("it is due %s before its end, want %s", got, c.before)
				}
				if got := token.TTL(time.Now()); got != c.ttl {
					t.Errorf("ttl is %d, want %d", got, c.ttl)
				}
				if got := token.RotationPeriod(); got != c.rotationPeriod {
					t.Errorf("rotation period is %d, want %d", got, c.rotationPeriod)
				}
			})
		})
	}
}

// TestRead_atItsTTLGetsANewerToken holds the promise that
// readers rely on, over random lives, refresh times and moments of reading.
func TestRead_atItsTTLGetsANewerToken(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d) + 1)) }
	for range 1000 {
		life := 2*time.Second + upTo([]time.Duration{3 * time.Second, time.Minute, 24*time.Hour - 2*time.Second}[random.IntN(3)])
		before := []time.Duration{0, upTo(2 * time.Second), upTo(life)}[random.IntN(3)]
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(upTo(time.Second)) // Exchanges fall on any part of a second.
			svc := &service{life: life, latency: upTo(50 * time.Millisecond), wholeSeconds: life >= 3*time.Second && random.IntN(2) == 0}
			s := New(Options{Exchanger: ExchangeFunc(svc.exchange), RefreshBefore: before})
			defer s.Close()
			first := mustRead(t, s)
			time.Sleep(upTo(time.Until(first.refreshAt()) - 1))
			again := mustRead(t, s)
			if again.ID != first.ID || svc.count() != 1 {
				t.Fatalf("life %s, refresh before %s: %d exchanges before the token's replacement", life, before, svc.count())
			}
			ttl := again.TTL(time.Now())
			if ttl < 1 || again.RotationPeriod() < ttl {
				t.Fatalf("ttl %d, rotation period %d", ttl, again.RotationPeriod())
			}
			time.Sleep(time.Duration(ttl) * time.Second)
			if !time.Now().Before(again.ExpiresAt) {
				t.Fatalf("life %s, refresh before %s: the token was dead at its ttl of %d s", life, before, ttl)
			}
			time.Sleep(upTo(life) * time.Duration(random.IntN(2)))
			next := mustRead(t, s)
			if next.ID == again.ID || next.Stale {
				t.Fatalf("life %s, refresh before %s: the token is the same after its ttl of %d s", life, before, ttl)
			}
			if !time.Now().Before(next.ExpiresAt) {
				t.Fatalf("life %s, refresh before %s: the newer token is dead", life, before)
			}
		})
	}
}

// TestIssuedToken_refreshIsEarlyByARandomTime: a replacement starts a twentieth to a tenth of
// the time early.
func TestIssuedToken_refreshIsEarlyByARandomTime(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	synctest.Test(t, func(t *testing.T) {
		for range 1000 {
			life := time.Duration(random.Int64N(int64(2 * time.Hour)))
			token := issuedTokenOf(life, time.Duration(random.Int64N(int64(2*time.Hour))))
			longest := min(token.DueAt.Sub(token.IssuedAt)/10, maxLead)
			if lead := token.DueAt.Sub(token.refreshAt()); lead < longest/2 || lead > longest {
				t.Fatalf("life %s: the replacement leads by %s, want %s to %s", life, lead, longest/2, longest)
			}
		}
	})
}

// TestIssuedToken_refreshesAreSpread: configs that were written together are not replaced
// together.
func TestIssuedToken_refreshesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seconds := map[int64]int{}
		for range 1000 {
			seconds[int64(time.Until(issuedTokenOf(time.Hour, 0).refreshAt())/time.Second)]++
		}
		for second, replacements := range seconds {
			if replacements > 100 {
				t.Errorf("%d of 1000 replacements fall into second %d", replacements, second)
			}
		}
		if len(seconds) < 25 {
			t.Errorf("1000 replacements fall into %d seconds", len(seconds))
		}
	})
}

func TestIssuedToken_usableUntilShortlyBeforeItsEnd(t *testing.T) {
	for _, c := range []struct {
		name                 string
		life, margin, minTTL time.Duration
	}{
		{"10 s", time.Hour, 10 * time.Second, 0},
		{"a tenth of a short life", 30 * time.Second, 3 * time.Second, 0},
		{"what the reader asks for", time.Hour, 20*time.Second - 1, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				token := issuedTokenOf(c.life, 0)
				last := token.ExpiresAt.Add(-c.margin)
				if !token.usable(last.Add(-1), c.minTTL) {
					t.Errorf("it is not usable just before the last %s of its life", c.margin)
				}
				if token.usable(last, c.minTTL) {
					t.Errorf("it is usable in the last %s of its life", c.margin)
				}
			})
		})
	}
}

func TestNew_currentTokenIsDueByTheNewSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{life: time.Hour}
		token := issuedTokenOf(time.Hour, 0)
		time.Sleep(50 * time.Minute)
		s := New(Options{Exchanger: ExchangeFunc(svc.exchange), RefreshBefore: 5 * time.Minute, Current: token})
		defer s.Close()
		a := mustRead(t, s)
		if a.ID != "token" || a.Stale || svc.count() != 0 {
			t.Fatalf("got %s after %d exchanges", a.ID, svc.count())
		}
		if got := a.ExpiresAt.Sub(a.DueAt); got != 5*time.Minute {
			t.Fatalf("it is due %s before its end", got)
		}
		if a.RotationPeriod() != 3300 || !a.IssuedAt.Equal(token.IssuedAt) {
			t.Fatalf("it counts as issued at %s", a.IssuedAt)
		}
		time.Sleep(time.Until(a.DueAt))
		started := time.Now()
		if b := mustRead(t, s); b.ID != "token-1" || time.Since(started) != 0 {
			t.Fatalf("once it is due the reader got %s after %s", b.ID, time.Since(started))
		}
	})
}

// TestNew_currentTokenPastDueIsReplacedFirst has a token past due by the new settings.
func TestNew_currentTokenPastDueIsReplacedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{life: time.Hour}
		token := issuedTokenOf(time.Hour, time.Minute)
		time.Sleep(50 * time.Minute)
		s := New(Options{Exchanger: ExchangeFunc(svc.exchange), RefreshBefore: 20 * time.Minute, Current: token})
		defer s.Close()
		if a := mustRead(t, s); a.ID != "token-1" || a.Stale {
			t.Fatalf("got %s", a.ID)
		}
	})
}

func TestMinTTL_replacesATokenThatEndsSooner(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		time.Sleep(20 * time.Minute)
		if a, err := s.Read(t.Context(), 40*time.Minute); err != nil || a.ID != first.ID {
			t.Fatalf("with just enough life left the reader got %v, error %v", a, err)
		}
		a, err := s.Read(t.Context(), 40*time.Minute+1)
		if err != nil || a.ID != "token-2" {
			t.Fatalf("got %v, error %v", a, err)
		}
		if mustRead(t, s).ID != a.ID || svc.count() != 2 {
			t.Fatal("the replacement is not shared")
		}
	})
}

func TestMinTTL_tooLongCostsOneExchangeAtMost(t *testing.T) {
	for _, minTTL := range []time.Duration{54*time.Minute + 1, time.Hour, 2 * time.Hour} {
		t.Run(minTTL.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				for range 10 {
					_, err := s.Read(t.Context(), minTTL)
					requireTooShort(t, err, minTTL, 54*time.Minute)
					time.Sleep(time.Minute)
				}
				if got := svc.count(); got != 1 {
					t.Fatalf("%d exchanges", got)
				}
				if a := mustRead(t, s); a.ID != "token-1" || svc.count() != 1 {
					t.Fatal("the demanding reader's token is of no use to others")
				}
			})
		})
	}
}

func requireTooShort(t *testing.T, err error, minTTL, longest time.Duration) {
	t.Helper()
	var short *TooShortError
	if !errors.As(err, &short) || short.MinTTL != minTTL || short.Longest != longest {
		t.Fatalf("error is %v, want one that says %s", err, longest)
	}
	if text := err.Error(); !strings.Contains(text, minTTL.String()) || !strings.Contains(text, longest.String()) {
		t.Fatalf("error is %q", text)
	}
}

func TestMinTTL_ofADedicatedTokenMayBeItsLifetime(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		_, err := s.Dedicated(t.Context(), time.Hour+1)
		requireTooShort(t, err, time.Hour+1, time.Hour)
		if _, err := s.Dedicated(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		mustRead(t, s)
		before := svc.count()
		for range 10 {
			_, err := s.Dedicated(t.Context(), time.Hour+1)
			requireTooShort(t, err, time.Hour+1, time.Hour)
		}
		if got := svc.count() - before; got != 0 {
			t.Errorf("%d exchanges for what the shared token shows to be impossible", got)
		}
		if _, err := s.Dedicated(t.Context(), time.Hour); err != nil {
			t.Errorf("the whole life is refused while there is a shared token: %v", err)
		}
	})
}

// TestMinTTL_costsTenExchangesAtMost has readers ask every second for what
// makes the source exchange most often.
func TestMinTTL_costsTenExchangesAtMost(t *testing.T) {
	const life = time.Hour
	random := rand.New(rand.NewPCG(5, 6))
	same := func(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
	worst := func() time.Duration { return life * 9 / 10 }
	anything := func() time.Duration { return time.Duration(random.Int64N(int64(life))) }
	// A token that is handed out again is due when a quarter of what was left of it is
	// left, whether or not anybody asks for a min_ttl: that is six times in an hour.
	const repeated = 10 + 6
	for name, c := range map[string]struct {
		readers []func() time.Duration
		prepare func(*service)
		most    int
	}{
		"a reader of the worst that is accepted": {[]func() time.Duration{worst}, func(*service) {}, 10},
		"several of them":                        {[]func() time.Duration{worst, worst, same(life * 8 / 10), same(life / 2), same(0)}, func(*service) {}, 10},
		"readers who ask for anything":           {[]func() time.Duration{anything, anything, anything}, func(*service) {}, 10},
		"one who tries what is just refused":     {[]func() time.Duration{same(life*9/10 + 1), worst}, func(*service) {}, 10},
		"a service that takes a while":           {[]func() time.Duration{worst, anything}, func(svc *service) { svc.latency = 900 * time.Millisecond }, 10},
		"a service that cuts to seconds":         {[]func() time.Duration{worst, anything}, func(svc *service) { svc.wholeSeconds = true }, 10},
		"a service that repeats its token":       {[]func() time.Duration{worst, anything}, func(svc *service) { svc.repeats = true }, repeated},
		"a service that signs anew with one end": {[]func() time.Duration{worst, anything}, func(svc *service) { svc.keepsEnd = true }, repeated},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				c.prepare(svc)
				var at []time.Time
				svc.watch = func(context.Context) { at = append(at, time.Now()) }
				for range 3 * int(life/time.Second) {
					for _, minTTL := range c.readers {
						readNoWorse(t, s, minTTL())
					}
					time.Sleep(time.Second)
				}
				synctest.Wait()
				requireAtMost(t, at, c.most, life-time.Second)
			})
		})
	}
}

// readNoWorse fails if a reader gets less than it asks for, or an error other than
// that it asks for too much.
func readNoWorse(t *testing.T, s *Source, minTTL time.Duration) {
	t.Helper()
	a, err := s.Read(t.Context(), minTTL)
	var short *TooShortError
	switch {
	case err == nil && time.Until(a.ExpiresAt) < minTTL:
		t.Fatalf("a token with %s left was handed out for %s", time.Until(a.ExpiresAt), minTTL)
	case err != nil && !errors.As(err, &short):
		t.Fatal(err)
	case err != nil && short.Longest > minTTL:
		t.Fatalf("%s was refused, and %s is said to be possible", minTTL, short.Longest)
	}
}

// requireAtMost fails if more exchanges than most began in any stretch of time.
func requireAtMost(t *testing.T, at []time.Time, most int, stretch time.Duration) {
	t.Helper()
	for i := most; i < len(at); i++ {
		if took := at[i].Sub(at[i-most]); took < stretch {
			t.Fatalf("exchanges %d to %d began within %s", i-most+1, i+1, took)
		}
	}
}

// TestMinTTL_exchangesOfVaryingLifetimesAreSpaced holds, for a service whose
// tokens live as they like, what ten exchanges a life mean.
func TestMinTTL_exchangesOfVaryingLifetimesAreSpaced(t *testing.T) {
	for seed := range uint64(20) {
		lives, wishes := rand.New(rand.NewPCG(seed, 7)), rand.New(rand.NewPCG(seed, 8))
		bubble(t, func(t *testing.T, s *Source, svc *service) {
			var last time.Time
			var life time.Duration
			svc.watch = func(context.Context) {
				if since := time.Since(last); since < life/10 {
					t.Errorf("seed %d: an exchange %s after the one for a token of %s", seed, since, life)
				}
				life = time.Minute + time.Duration(lives.Int64N(int64(time.Hour)))
				last = time.Now()
				svc.set(func(svc *service) { svc.life = life })
			}
			for range 4 * 3600 {
				readNoWorse(t, s, time.Duration(wishes.Int64N(int64(time.Hour))))
				time.Sleep(time.Second)
			}
		})
	}
}

func TestMinTTL_acceptedOnceTokensLiveLonger(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.life = time.Minute
		_, err := s.Read(t.Context(), 30*time.Minute)
		requireTooShort(t, err, 30*time.Minute, 54*time.Second)
		svc.set(func(svc *service) { svc.life = time.Hour })
		time.Sleep(time.Until(s.Current().DueAt))
		if _, err := s.Read(t.Context(), 30*time.Minute); err != nil {
			t.Fatalf("once the short token is due: %v", err)
		}
	})
}

func TestMinTTL_ofARepeatedTokenIsWhatIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.repeats = true
		mustRead(t, s)
		time.Sleep(31 * time.Minute)
		for range 10 {
			_, err := s.Read(t.Context(), 30*time.Minute)
			requireTooShort(t, err, 30*time.Minute, 29*time.Minute)
		}
		if a, err := s.Read(t.Context(), 29*time.Minute); err != nil || a.ID != "token-1" {
			t.Fatalf("got %v, error %v", a, err)
		}
		if got := svc.count(); got != 2 {
			t.Fatalf("%d exchanges", got)
		}
	})
}

// TestResponse_staleTTL holds a stale token's TTL against what consumers of rotated credentials take.
func TestResponse_staleTTL(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		retryIn, period, left time.Duration
		want                  int64
	}{
		"at once":                           {0, time.Hour, time.Minute, 3},
		"in a second":                       {time.Second, time.Hour, time.Minute, 3},
		"in a minute":                       {time.Minute, time.Hour, time.Hour, 60},
		"later than the period":             {time.Minute, 30 * time.Second, time.Hour, 30},
		"a period shorter than the minimum": {time.Second, 2 * time.Second, time.Minute, 2},
		"a token that ends sooner":          {time.Second, time.Hour, 2500 * time.Millisecond, 2},
		"a token that ends now":             {0, time.Hour, time.Millisecond, 1},
	} {
		a := Response{IssuedToken: &IssuedToken{Token: tokenservice.Token{ExpiresAt: now.Add(c.left)}, IssuedAt: now.Add(-c.period), DueAt: now}, Stale: true, RetryAt: now.Add(c.retryIn)}
		if got := a.TTL(now); got != c.want {
			t.Errorf("%s: ttl is %d, not %d", name, got, c.want)
		}
	}
}
