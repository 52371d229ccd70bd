// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

func TestRead_coldReadersShareOneExchange(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		var readers sync.WaitGroup
		for i := range 200 {
			readers.Go(func() {
				time.Sleep(time.Duration(i) * 4 * time.Millisecond) // They come until the exchange ends.
				a, err := s.Read(t.Context(), 0)
				if err != nil || a.ID != "token-1" {
					t.Errorf("a reader got %v, error %v", a, err)
				}
			})
		}
		readers.Wait()
		if got := svc.count(); got != 1 {
			t.Fatalf("%d exchanges", got)
		}
	})
}

func TestRead_coldReadersShareOneFailure(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency, svc.err = time.Second, errDown
		var readers sync.WaitGroup
		for range 200 {
			readers.Go(func() {
				if _, err := s.Read(t.Context(), 0); err != error(errDown) {
					t.Errorf("error is %v", err)
				}
			})
		}
		readers.Wait()
		if got := svc.count(); got != 1 {
			t.Fatalf("%d exchanges", got)
		}
	})
}

func TestRead_tokenReplacedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustRead(t, s)
		a, err := s.readSlowly(t.Context(), 0) // It saw no token before it had the lock.
		if err != nil || a.ID != "token-1" || svc.count() != 1 {
			t.Fatalf("got %v, error %v, after %d exchanges", a, err, svc.count())
		}
	})
}

// TestRead_cancelledReaderEndsNoExchange: it gets its error at once, and the others their
// token.
func TestRead_cancelledReaderEndsNoExchange(t *testing.T) {
	for name, old := range map[string]bool{"without a token": false, "with an old token": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				if old {
					time.Sleep(time.Until(mustUnread(t, s).DueAt))
				}
				svc.set(func(svc *service) { svc.latency = 2500 * time.Millisecond })
				before := svc.count()
				other := make(chan error)
				go func() {
					a, err := s.Read(t.Context(), 0)
					if a.Stale {
						t.Error("the other reader got the old token")
					}
					other <- err
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				started := time.Now()
				if _, err := s.Read(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error is %v", err)
				}
				if took := time.Since(started); took != time.Second {
					t.Errorf("giving up took %s", took)
				}
				if err := <-other; err != nil || svc.count() != before+1 {
					t.Errorf("the other reader got error %v after %d exchanges", err, svc.count()-before)
				}
			})
		})
	}
}

func TestRead_exchangeOutlivesItsOnlyReader(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = 10 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Read(ctx, 0); !errors.Is(err, context.Canceled) {
			t.Fatalf("error is %v", err)
		}
		time.Sleep(svc.latency)
		synctest.Wait()
		started := time.Now()
		if a := mustRead(t, s); a.ID != "token-1" || time.Since(started) != 0 {
			t.Fatalf("the next reader got %s after %s", a.ID, time.Since(started))
		}
	})
}

// TestStale_readerWaitsNoLongerThanTheTimeout: with an old token in place, a hanging
// service delays a reader by staleTimeout at most.
func TestStale_readerWaitsNoLongerThanTheTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustUnread(t, s)
		svc.set(func(svc *service) { svc.latency = time.Hour })
		time.Sleep(time.Until(first.DueAt))
		for range 10 {
			started := time.Now()
			a := mustRead(t, s)
			if took := time.Since(started); took != staleTimeout {
				t.Errorf("the reader waited %s", took)
			}
			if !a.Stale || a.Why != nil || a.ID != first.ID || a.TTL(time.Now()) != minStaleTTL {
				t.Errorf("stale %t, why %v, ttl %d", a.Stale, a.Why, a.TTL(time.Now()))
			}
		}
		if got := svc.count(); got != 2 {
			t.Errorf("%d exchanges", got)
		}
	})
}

// TestStale_endsWhileAReaderWaits starts
// its readers when the old token is usable for less than staleTimeout.
func TestStale_endsWhileAReaderWaits(t *testing.T) {
	for _, c := range []struct {
		name    string
		latency time.Duration
		want    error
	}{
		{"a slow service", 20 * time.Second, nil},
		{"a hanging service", time.Hour, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				first := mustUnread(t, s)
				svc.set(func(svc *service) { svc.latency = c.latency })
				time.Sleep(time.Until(first.ExpiresAt) - expiryMargin - time.Second)
				started := time.Now()
				a, err := s.Read(t.Context(), 0)
				if !errors.Is(err, c.want) || err == nil && (a.Stale || a.ID == first.ID) {
					t.Errorf("got %v, error %v", a, err)
				}
				if took := time.Since(started); took != min(c.latency, exchangeTimeout) {
					t.Errorf("the reader waited %s", took)
				}
			})
		})
	}
}

func TestRead_hangingServiceEndsInAnError(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Hour
		started := time.Now()
		if _, err := s.Read(t.Context(), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		if took := time.Since(started); took != 80*time.Second {
			t.Errorf("the reader waited %s", took)
		}
		if _, err := s.Read(t.Context(), 0); !errors.As(err, new(*BackoffError)) {
			t.Errorf("the failure is not remembered: %v", err)
		}
	})
}

// callers are the ways to have a source make an exchange and wait for it.
func callers() map[string]func(context.Context, *Source) error {
	return map[string]func(context.Context, *Source) error{
		"a reader":                    func(ctx context.Context, s *Source) error { _, err := s.Read(ctx, 0); return err },
		"who wants a dedicated token": func(ctx context.Context, s *Source) error { _, err := s.Dedicated(ctx, 0); return err },
		"a write":                     func(ctx context.Context, s *Source) error { return s.Replace(ctx) },
	}
}

// TestClose_exchangesInFlightFinish closes a source in the middle of an
// exchange.
func TestClose_exchangesInFlightFinish(t *testing.T) {
	for caller, call := range callers() {
		for outcome, want := range map[string]error{"a token": nil, "a refusal": errRefused} {
			t.Run(caller+" and "+outcome, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var released atomic.Int64
					svc := &service{life: time.Hour, latency: time.Minute, err: want}
					backoff := &Backoff{failures: 3, last: errDown, until: time.Now()}
					s := New(Options{Exchanger: ExchangeFunc(svc.exchange), Backoff: backoff, Release: func() { released.Add(1) }})
					result := make(chan error)
					go func() { result <- call(t.Context(), s) }()
					synctest.Wait()
					closed := time.Now()
					s.Close()
					s.Close()
					if err := <-result; !errors.Is(err, ErrClosed) || time.Since(closed) != 0 {
						t.Errorf("error is %v after %s", err, time.Since(closed))
					}
					if released.Load() != 0 {
						t.Error("the source is released though its exchange is in flight")
					}
					time.Sleep(svc.latency)
					synctest.Wait()
					if s.Current() != nil || released.Load() != 1 {
						t.Errorf("the closed source shares %v and was released %d times", s.Current(), released.Load())
					}
					if err := backoff.Check(); !errors.Is(err, want) || backoff.failures != map[bool]int{true: 4}[want != nil] {
						t.Errorf("of the answer that came late is remembered %v after %d failures", err, backoff.failures)
					}
				})
			})
		}
	}
}

func TestClose_releasesAnIdleSourceAtOnce(t *testing.T) {
	released := 0
	s := New(Options{Release: func() { released++ }})
	s.Close()
	s.Close()
	if released != 1 {
		t.Fatalf("it was released %d times", released)
	}
}

// TestLifetime_endsExchangesInFlight has both kinds in flight, some of them of
// callers who left, and one that waits for its slot.
func TestLifetime_endsExchangesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lifetime, end := context.WithCancel(t.Context())
		svc := &service{life: time.Hour, latency: time.Hour}
		released := make(chan struct{})
		s := New(Options{Exchanger: ExchangeFunc(svc.exchange), Lifetime: lifetime, Release: func() { close(released) }})
		results := make(chan error)
		leaving, leave := context.WithCancel(t.Context())
		for i := range 2 * MaxExchanges {
			for _, call := range callers() {
				ctx := t.Context()
				if i%2 == 0 {
					ctx = leaving
				}
				go func() { results <- call(ctx, s) }()
			}
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		ended := time.Now()
		end()
		for range 2 * MaxExchanges * len(callers()) {
			if err := <-results; !errors.Is(err, ErrClosed) && !errors.Is(err, context.Canceled) {
				t.Errorf("error is %v", err)
			}
		}
		s.Close()
		<-released
		if took := time.Since(ended); took != 0 {
			t.Errorf("it took %s", took)
		}
		if got := s.Status(); got.LastError != nil || got.Failures != 0 {
			t.Errorf("what was cut off counts as the service's failure: %v", got.LastError)
		}
	})
}

// TestExchange_countsThoughItsCallerLeft has twenty callers, one after the other, each
// of whom leaves as soon as the service has been called.
func TestExchange_countsThoughItsCallerLeft(t *testing.T) {
	const latency = 100 * time.Millisecond
	for _, c := range []struct {
		caller string
		pause  time.Duration
		calls  int
	}{
		{"a reader", 2 * latency, 1},
		{"a reader", latency / 10, 1},
		{"who wants a dedicated token", 2 * latency, 1},
		{"who wants a dedicated token", latency / 10, MaxExchanges - 1},
		{"a write", 2 * latency, 1},
		{"a write", latency / 10, MaxExchanges - 1},
	} {
		t.Run(fmt.Sprint(c.caller, " every ", c.pause), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				svc.latency, svc.err = latency, errRefused
				for range 20 {
					ctx, leave := context.WithCancel(t.Context())
					go func() {
						synctest.Wait()
						leave()
					}()
					if err := callers()[c.caller](ctx, s); !errors.Is(err, context.Canceled) && !errors.Is(err, errRefused) {
						t.Errorf("error is %v", err)
					}
					leave()
					time.Sleep(c.pause)
				}
				if got := svc.count(); got != c.calls {
					t.Errorf("the key was sent %d times, want %d", got, c.calls)
				}
				if got := s.Status(); got.Failures != 1 || got.LastError != errRefused {
					t.Errorf("status is %+v", got)
				}
			})
		})
	}
}

func TestExchange_tokenOfACallerWhoLeftIsNotUsed(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		for _, call := range []func(context.Context) error{
			func(ctx context.Context) error { _, err := s.Dedicated(ctx, 0); return err },
			s.Replace,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error is %v", err)
			}
		}
		time.Sleep(time.Minute)
		if s.Current() != nil {
			t.Error("a token is shared whose caller left")
		}
		if got := s.Status(); svc.count() != 2 || time.Since(got.LastSuccess) != time.Minute-time.Second+time.Millisecond {
			t.Errorf("after %d exchanges the last success was %s ago", svc.count(), time.Since(got.LastSuccess))
		}
	})
}

func TestExchange_panicIsAnErrorWithoutItsValue(t *testing.T) {
	const key = "the-api-key"
	for name, exchange := range map[string]ExchangeFunc{
		"a value":      func(context.Context) (*tokenservice.Token, error) { panic(key) },
		"an error":     func(context.Context) (*tokenservice.Token, error) { panic(errors.New(key)) },
		"no token":     func(context.Context) (*tokenservice.Token, error) { return nil, nil },
		"a dead token": func(context.Context) (*tokenservice.Token, error) { return &tokenservice.Token{Value: key}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Options{Exchanger: exchange})
				defer s.Close()
				_, err := s.Read(t.Context(), 0)
				requireSilent(t, err, key)
				_, err = s.Read(t.Context(), 0)
				if !errors.As(err, new(*BackoffError)) {
					t.Errorf("the failure is not remembered: %v", err)
				}
				time.Sleep(time.Minute)
				_, err = s.Dedicated(t.Context(), 0)
				requireSilent(t, err, key)
			})
		})
	}
}
