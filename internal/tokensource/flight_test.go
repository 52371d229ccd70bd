// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

func TestColdReadersShareOneExchange(t *testing.T) {
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

func TestColdReadersShareOneFailure(t *testing.T) {
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

func TestAReaderThatFindsTheTokenReplacedNeedsNoExchange(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustRead(t, s)
		a, err := s.readSlowly(t.Context(), 0) // It saw no token before it had the lock.
		if err != nil || a.ID != "token-1" || svc.count() != 1 {
			t.Fatalf("got %v, error %v, after %d exchanges", a, err, svc.count())
		}
	})
}

func TestAReaderThatGivesUpGetsItsErrorAtOnceAndEndsTheExchangeForNobody(t *testing.T) {
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

func TestAnExchangeGoesOnThoughItsOnlyReaderGaveUp(t *testing.T) {
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

func TestAReaderWithAnOldTokenWaitsForAHangingServiceNoLongerThanItsPatience(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustUnread(t, s)
		svc.set(func(svc *service) { svc.latency = time.Hour })
		time.Sleep(time.Until(first.DueAt))
		for range 10 {
			started := time.Now()
			a := mustRead(t, s)
			if took := time.Since(started); took != patience {
				t.Errorf("the reader waited %s", took)
			}
			if !a.Stale || a.Why != nil || a.ID != first.ID || a.TTL(time.Now()) != 1 {
				t.Errorf("stale %t, why %v, ttl %d", a.Stale, a.Why, a.TTL(time.Now()))
			}
		}
		if got := svc.count(); got != 2 {
			t.Errorf("%d exchanges", got)
		}
	})
}

// TestAReaderWhoseOldTokenEndsWhileItWaitsGetsTheNewOneOrTheServicesError starts
// its readers when less than their patience is left of the old token's use.
func TestAReaderWhoseOldTokenEndsWhileItWaitsGetsTheNewOneOrTheServicesError(t *testing.T) {
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

func TestAColdReaderOfAHangingServiceGetsAnErrorAtLast(t *testing.T) {
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

func TestAClosedSourceLetsItsReadersGoAndIsFilledByNoLateExchange(t *testing.T) {
	for name, svc := range map[string]*service{
		"that ends with its context":   {life: time.Hour, latency: time.Minute},
		"that ignores its context":     {life: time.Hour, latency: time.Minute, deaf: true},
		"that fails after the closing": {latency: time.Minute, deaf: true, err: errDown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Options{Exchange: svc.exchange})
				result := make(chan error)
				go func() { _, err := s.Read(t.Context(), 0); result <- err }()
				synctest.Wait()
				s.Close()
				closed := time.Now()
				if err := <-result; !errors.Is(err, ErrClosed) {
					t.Errorf("error is %v", err)
				}
				if waited := time.Since(closed); waited != 0 {
					t.Errorf("the reader waited %s longer", waited)
				}
				time.Sleep(30 * time.Minute) // A token that came late would still live.
				if s.Current() != nil || s.backoff.last != nil {
					t.Error("a late exchange reached the closed source")
				}
			})
		})
	}
}

func TestAClosedSourceEndsThePurchasesThatAreUnderWay(t *testing.T) {
	for name, deaf := range map[string]bool{"that end with their context": false, "that ignore their context": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := &service{life: time.Hour, latency: time.Minute, deaf: deaf}
				s := New(Options{Exchange: svc.exchange})
				results := make(chan error, 2)
				go func() { _, err := s.Buy(t.Context(), 0); results <- err }()
				go func() { results <- s.Replace(t.Context()) }()
				synctest.Wait()
				s.Close()
				closed := time.Now()
				for range 2 {
					if err := <-results; !errors.Is(err, ErrClosed) {
						t.Errorf("error is %v", err)
					}
				}
				if waited := time.Since(closed); waited != 0 && !deaf {
					t.Errorf("the callers waited %s longer", waited)
				}
				if s.Current() != nil {
					t.Error("a late purchase fills the closed source")
				}
			})
		})
	}
}

func TestAPanicInAnExchangeIsAnErrorThatDoesNotQuoteIt(t *testing.T) {
	const key = "the-api-key"
	for name, exchange := range map[string]ExchangeFunc{
		"a value":      func(context.Context) (*tokenservice.Token, error) { panic(key) },
		"an error":     func(context.Context) (*tokenservice.Token, error) { panic(errors.New(key)) },
		"no token":     func(context.Context) (*tokenservice.Token, error) { return nil, nil },
		"a dead token": func(context.Context) (*tokenservice.Token, error) { return &tokenservice.Token{Value: key}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Options{Exchange: exchange})
				defer s.Close()
				_, err := s.Read(t.Context(), 0)
				requireSilent(t, err, key)
				_, err = s.Read(t.Context(), 0)
				if !errors.As(err, new(*BackoffError)) {
					t.Errorf("the failure is not remembered: %v", err)
				}
				time.Sleep(time.Minute)
				_, err = s.Buy(t.Context(), 0)
				requireSilent(t, err, key)
			})
		})
	}
}
