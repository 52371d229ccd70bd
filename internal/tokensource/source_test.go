// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

// service is a token service in the bubble: it sells tokens of a certain life,
// takes its time, and fails when told.
type service struct {
	mu        sync.Mutex
	life      time.Duration
	latency   time.Duration
	err       error
	exchanges int
}

func (s *service) exchange(ctx context.Context) (*tokenservice.Token, error) {
	s.mu.Lock()
	s.exchanges++
	n, life, latency, err := s.exchanges, s.life, s.latency, s.err
	s.mu.Unlock()
	select {
	case <-time.After(latency):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return &tokenservice.Token{Value: "jwt", Type: "Bearer", ID: fmt.Sprint("token-", n), ExpiresAt: time.Now().Add(life)}, nil
}

func (s *service) set(change func(*service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exchanges
}

var (
	errDown    = &tokenservice.Error{Outcome: tokenservice.Unavailable, Reason: "is down"}
	errRefused = &tokenservice.Error{Outcome: tokenservice.Refused, Reason: "refused the API key"}
)

// bubble runs a test with a source of hour-long tokens and closes it, so that
// synctest fails on whatever it leaves running.
func bubble(t *testing.T, test func(t *testing.T, s *Source, svc *service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		svc := &service{life: time.Hour}
		s := New(Options{Exchange: svc.exchange})
		defer s.Close()
		test(t, s, svc)
	})
}

func mustRead(t *testing.T, s *Source) Answer {
	t.Helper()
	a, err := s.Read(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestColdReadersShareOneExchange(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		var readers sync.WaitGroup
		for range 200 {
			readers.Go(func() {
				if a := mustRead(t, s); a.ID != "token-1" {
					t.Errorf("a reader got %s", a.ID)
				}
			})
		}
		readers.Wait()
		if got := svc.count(); got != 1 {
			t.Fatalf("%d exchanges", got)
		}
	})
}

func TestAReaderThatGivesUpEndsTheExchangeForNobody(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = 10 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		other := make(chan Answer)
		go func() { other <- mustRead(t, s) }()
		synctest.Wait()
		started := time.Now()
		if _, err := s.Read(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		if took := time.Since(started); took != time.Second {
			t.Errorf("giving up took %s", took)
		}
		if a := <-other; a.ID != "token-1" || svc.count() != 1 {
			t.Errorf("the other reader got %s after %d exchanges", a.ID, svc.count())
		}
	})
}

// TestAReadAtItsTTLGetsANewerTokenWhileTheOldOneStillLives holds the promise that
// readers rely on, over random lives, refresh times and moments of reading.
func TestAReadAtItsTTLGetsANewerTokenWhileTheOldOneStillLives(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		life := 2*time.Second + time.Duration(random.Int64N(int64(24*time.Hour)))
		before := time.Duration(random.Int64N(int64(life))) * time.Duration(random.IntN(2))
		synctest.Test(t, func(t *testing.T) {
			svc := &service{life: life, latency: time.Duration(random.Int64N(int64(50 * time.Millisecond)))}
			s := New(Options{Exchange: svc.exchange, RefreshBefore: before})
			defer s.Close()
			first := mustRead(t, s)
			time.Sleep(time.Duration(random.Int64N(int64(time.Until(first.refreshAt))) + 1))
			again := mustRead(t, s)
			ttl := again.TTL(time.Now())
			if ttl < 0 || again.RotationPeriod() < 1 {
				t.Fatalf("ttl %d, rotation period %d", ttl, again.RotationPeriod())
			}
			time.Sleep(time.Duration(ttl) * time.Second)
			next := mustRead(t, s)
			if next.ID == again.ID {
				t.Fatalf("life %s, refresh before %s: the token is the same at its ttl of %d s", life, before, ttl)
			}
			if life > 10*time.Second && before > 3*time.Second && !time.Now().Before(again.ExpiresAt) {
				t.Fatalf("life %s, refresh before %s: the token was dead at its ttl of %d s", life, before, ttl)
			}
		})
	}
}

func TestATokenThatWasReadIsReplacedBeforeAnybodyNeedsIt(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		first := mustRead(t, s)
		time.Sleep(time.Until(first.DueAt))
		started := time.Now()
		if a := mustRead(t, s); a.ID != "token-2" {
			t.Errorf("got %s", a.ID)
		}
		if took := time.Since(started); took != 0 {
			t.Errorf("the reader waited %s", took)
		}
	})
}

func TestATokenThatNobodyReadsIsLeftToLapse(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustRead(t, s)
		time.Sleep(48 * time.Hour) // The second token was bought ahead, and never read.
		if got := svc.count(); got != 2 {
			t.Fatalf("%d exchanges", got)
		}
		if s.Current() != nil {
			t.Fatal("a dead token is current")
		}
	})
}

func TestReplacementsOfConfigsWrittenTogetherAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moments := map[time.Time]bool{}
		for range 100 {
			token := &tokenservice.Token{ExpiresAt: time.Now().Add(time.Hour)}
			lease := NewLease(token, 0)
			lead := lease.DueAt.Sub(lease.refreshAt)
			if lead < maxLead/2 || lead > maxLead {
				t.Fatalf("the replacement leads by %s", lead)
			}
			moments[lease.refreshAt] = true
		}
		if len(moments) < 90 {
			t.Fatalf("100 replacements fall on %d moments", len(moments))
		}
	})
}

func TestWhileTheServiceIsDownTheOldTokenIsServedUntilShortlyBeforeItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		svc.set(func(svc *service) { svc.err = errDown })
		time.Sleep(time.Until(first.DueAt))
		for time.Until(first.ExpiresAt) > expiryMargin {
			a := mustRead(t, s)
			if !a.Stale || a.Why == nil || a.ID != first.ID {
				t.Fatalf("%s before its end: stale %t, why %v", time.Until(first.ExpiresAt), a.Stale, a.Why)
			}
			if ttl := a.TTL(time.Now()); ttl < 1 || ttl > 31 {
				t.Fatalf("the reader is asked to come back in %d s", ttl)
			}
			time.Sleep(time.Second)
		}
		if _, err := s.Read(t.Context(), 0); !errors.As(err, new(*BackoffError)) && !errors.Is(err, errDown) {
			t.Fatalf("at its end the error is %v", err)
		}
		if got := svc.count(); got > 40 {
			t.Fatalf("%d exchanges in a quarter of an hour", got)
		}
	})
}

func TestTheServicesRecoveryIsNoticedWithoutAReader(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		svc.set(func(svc *service) { svc.err = errDown })
		time.Sleep(time.Until(first.DueAt))
		svc.set(func(svc *service) { svc.err, svc.latency = nil, time.Second })
		time.Sleep(maxUnavailableBackoff + time.Second)
		recovered := time.Now()
		if a := mustRead(t, s); a.Stale || a.ID == first.ID {
			t.Errorf("got %s, stale %t", a.ID, a.Stale)
		}
		if waited := time.Since(recovered); waited != 0 {
			t.Errorf("the first reader waited %s", waited)
		}
	})
}

func TestAReaderWithAnOldTokenToFallBackOnWaitsForAHangingServiceNoLongerThanItsPatience(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		svc.set(func(svc *service) { svc.latency = time.Hour })
		time.Sleep(time.Until(first.DueAt))
		started := time.Now()
		a := mustRead(t, s)
		if took := time.Since(started); took > patience {
			t.Errorf("the reader waited %s", took)
		}
		if !a.Stale || a.Why != nil || a.ID != first.ID {
			t.Errorf("stale %t, why %v", a.Stale, a.Why)
		}
	})
}

func TestAColdReaderOfAHangingServiceGetsAnErrorAtLast(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Hour
		started := time.Now()
		if _, err := s.Read(t.Context(), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		if took := time.Since(started); took != exchangeTimeout {
			t.Errorf("the reader waited %s", took)
		}
	})
}

func TestARememberedFailureCausesNoExchange(t *testing.T) {
	for _, c := range []struct {
		name            string
		err             error
		first, greatest time.Duration
	}{
		{"a service that is down", errDown, firstUnavailableBackoff, maxUnavailableBackoff},
		{"a key that is refused", errRefused, firstRefusedBackoff, maxRefusedBackoff},
		{"a service that asks to be left alone", &tokenservice.Error{RetryAfter: 5 * time.Minute}, 5 * time.Minute, 5 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				svc.err = c.err
				want := c.first
				for attempt := 1; attempt <= 10; attempt++ {
					if _, err := s.Read(t.Context(), 0); !errors.Is(err, c.err) {
						t.Fatalf("error is %v", err)
					}
					time.Sleep(want - time.Nanosecond)
					var remembered *BackoffError
					if _, err := s.Read(t.Context(), 0); !errors.As(err, &remembered) || !errors.Is(err, c.err) {
						t.Fatalf("attempt %d: just before %s error is %v", attempt, want, err)
					}
					if _, err := s.Buy(t.Context(), 0); !errors.As(err, &remembered) {
						t.Fatalf("a purchase got past the back-off: %v", err)
					}
					if svc.count() != attempt {
						t.Fatalf("%d exchanges, want %d", svc.count(), attempt)
					}
					time.Sleep(time.Nanosecond)
					want = min(2*want, c.greatest)
				}
				svc.set(func(svc *service) { svc.err = nil })
				mustRead(t, s)
				if s.backoff != (backoff{}) {
					t.Fatal("a success does not clear the memory")
				}
			})
		})
	}
}

func TestATokenWithTooLittleLifeIsReplacedFirst(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustRead(t, s)
		time.Sleep(20 * time.Minute)
		a, err := s.Read(t.Context(), 41*time.Minute)
		if err != nil || a.ID != "token-2" {
			t.Fatalf("got %v, error %v", a, err)
		}
	})
}

func TestMoreLifeThanTokensHaveIsAnErrorThatCostsOneExchangeAtMost(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		for range 10 {
			var short *TooShortError
			if _, err := s.Read(t.Context(), 2*time.Hour); !errors.As(err, &short) || short.Life != time.Hour {
				t.Fatalf("error is %v", err)
			}
		}
		if _, err := s.Buy(t.Context(), 2*time.Hour); !errors.As(err, new(*TooShortError)) {
			t.Fatalf("error is %v", err)
		}
		if got := svc.count(); got != 2 {
			t.Fatalf("%d exchanges", got)
		}
	})
}

func TestAPurchaseIsNobodyElses(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		shared := mustRead(t, s).ID
		seen := map[string]bool{shared: true}
		for range 10 {
			lease, err := s.Buy(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if seen[lease.ID] {
				t.Fatalf("%s was handed out twice", lease.ID)
			}
			seen[lease.ID] = true
		}
		if mustRead(t, s).ID != shared {
			t.Fatal("the shared token changed")
		}
	})
}

func TestACallerThatGivesUpAPurchaseSaysNothingAboutTheService(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Buy(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error is %v", err)
		}
		mustRead(t, s)
	})
}

func TestReplaceSharesWhatItBuys(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustRead(t, s)
		if err := s.Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a := mustRead(t, s); a.ID != "token-2" {
			t.Fatalf("got %s", a.ID)
		}
	})
}

func TestOnlyTheNamedTokenIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		s.Drop("another")
		if mustRead(t, s).ID != first.ID {
			t.Fatal("another token's drop dropped this one")
		}
		s.Drop(first.ID)
		if mustRead(t, s).ID == first.ID {
			t.Fatal("the token is still shared")
		}
	})
}

func TestAClosedSourceLetsItsReadersGoAndIsFilledByNoLateExchange(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Minute
		results := make(chan error, 3)
		go func() { _, err := s.Read(t.Context(), 0); results <- err }()
		go func() { _, err := s.Buy(t.Context(), 0); results <- err }()
		go func() { results <- s.Replace(t.Context()) }()
		synctest.Wait()
		s.Close()
		for range 3 {
			if err := <-results; !errors.Is(err, ErrClosed) {
				t.Errorf("error is %v", err)
			}
		}
		time.Sleep(time.Hour)
		if s.Current() != nil {
			t.Error("a late exchange filled the closed source")
		}
		if _, err := s.Read(t.Context(), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("error is %v", err)
		}
		s.Drop("x")
		s.Close()
	})
}

func TestAnExchangeThatIgnoresItsContextFillsNoClosedSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Exchange: func(context.Context) (*tokenservice.Token, error) {
			time.Sleep(time.Minute)
			return &tokenservice.Token{ID: "late", ExpiresAt: time.Now().Add(time.Hour)}, nil
		}})
		result := make(chan error)
		go func() { _, err := s.Read(t.Context(), 0); result <- err }()
		synctest.Wait()
		s.Close()
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Errorf("error is %v", err)
		}
		time.Sleep(time.Hour)
		if s.Current() != nil {
			t.Error("the late token is current")
		}
	})
}

func TestNoTimerIsLeftOfAClosedSource(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, _ *service) {
		mustRead(t, s)
		s.Close()
		if s.timer.Stop() {
			t.Fatal("the timer was still armed")
		}
	})
}

func TestAPanicInAnExchangeIsAnErrorThatDoesNotQuoteIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Exchange: func(context.Context) (*tokenservice.Token, error) { panic("secret") }})
		defer s.Close()
		_, err := s.Read(t.Context(), 0)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Fatalf("error is %v", err)
		}
	})
}

func TestATokenThatWasBoughtBeforeIsSharedAndDueAsTheNewSettingsSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{life: time.Hour}
		lease := NewLease(&tokenservice.Token{ID: "before", ExpiresAt: time.Now().Add(time.Hour)}, 0)
		s := New(Options{Exchange: svc.exchange, RefreshBefore: 5 * time.Minute, Current: lease})
		defer s.Close()
		a := mustRead(t, s)
		if a.ID != "before" || svc.count() != 0 {
			t.Fatalf("got %s after %d exchanges", a.ID, svc.count())
		}
		if got := a.ExpiresAt.Sub(a.DueAt); got != 5*time.Minute {
			t.Fatalf("it is due %s before its end", got)
		}
	})
}

// TestRandomHistoriesNeverHandOutADeadTokenNorHammerTheService plays random
// sequences of everything that can happen to a source.
func TestRandomHistoriesNeverHandOutADeadTokenNorHammerTheService(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 0))
		bubble(t, func(t *testing.T, s *Source, svc *service) {
			svc.life = 20*time.Second + time.Duration(random.Int64N(int64(2*time.Hour)))
			bought, started := 0, time.Now()
			for range 200 {
				switch random.IntN(7) {
				case 0:
					svc.set(func(svc *service) { svc.err = []error{nil, nil, errDown, errRefused}[random.IntN(4)] })
				case 1:
					svc.set(func(svc *service) { svc.latency = time.Duration(random.Int64N(int64(10 * time.Second))) })
				case 2:
					time.Sleep(time.Duration(random.Int64N(int64(svc.life))))
				case 3:
					bought++
					if lease, err := s.Buy(t.Context(), 0); err == nil && !time.Now().Before(lease.ExpiresAt) {
						t.Fatal("a dead token was bought")
					}
				case 4:
					if current := s.Current(); current != nil {
						bought++ // It must be bought anew.
						s.Drop(current.ID)
					}
				default:
					requireAlive(t, s, svc.life)
				}
			}
			// Apart from what was asked for: a replacement each half of a life at
			// most, and retries a second apart at the very least.
			limit := bought + 2 + int(time.Since(started)/(svc.life/2)) + int(time.Since(started)/time.Second)
			if got := svc.count(); got > limit {
				t.Fatalf("seed %d: %d exchanges, at most %d make sense", seed, got, limit)
			}
		})
	}
}

func requireAlive(t *testing.T, s *Source, life time.Duration) {
	t.Helper()
	a, err := s.Read(t.Context(), 0)
	if err != nil {
		return
	}
	left := time.Until(a.ExpiresAt)
	if a.Stale && left <= min(expiryMargin, a.life()/10) {
		t.Fatalf("an old token was handed out %s before its end", left)
	}
	if !a.Stale && !time.Now().Before(a.DueAt) {
		t.Fatal("a token that is due was handed out as fresh")
	}
	if ttl := a.TTL(time.Now()); ttl < 0 || ttl > int64(life/time.Second)+1 {
		t.Fatalf("ttl is %d", ttl)
	}
}

func TestAReadOfAFreshTokenAllocatesNothing(t *testing.T) {
	svc := &service{life: time.Hour}
	s := New(Options{Exchange: svc.exchange})
	defer s.Close()
	mustRead(t, s)
	ctx := context.Background()
	if got := testing.AllocsPerRun(1000, func() { _, _ = s.Read(ctx, 0) }); got != 0 {
		t.Fatalf("a read makes %v allocations", got)
	}
}

func BenchmarkReadOfAFreshToken(b *testing.B) {
	svc := &service{life: time.Hour}
	s := New(Options{Exchange: svc.exchange})
	defer s.Close()
	ctx := context.Background()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Read(ctx, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}
