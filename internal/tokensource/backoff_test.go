// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// TestBackoff_causesNoExchange tries at both edges of each backoff.
func TestBackoff_causesNoExchange(t *testing.T) {
	seconds := func(s ...time.Duration) []time.Duration {
		for i := range s {
			s[i] *= time.Second
		}
		return s
	}
	for _, c := range []struct {
		name  string
		err   error
		waits []time.Duration
	}{
		{"a service that is down", errDown, seconds(1, 2, 4, 8, 10, 10, 10)},
		{"a key that is refused", errRefused, seconds(5, 10, 20, 40, 60, 60, 60)},
		{"a refusal that is wrapped", fmt.Errorf("exchange: %w", errRefused), seconds(5, 10, 20, 40, 60, 60)},
		{"an error of no known kind", errors.New("odd"), seconds(1, 2, 4, 8, 10, 10)},
		{"a service that asks callers to back off", &upstream.Error{RetryAfter: 5 * time.Minute}, seconds(300, 300)},
		{"a service that asks for less", &upstream.Error{RetryAfter: 3 * time.Second}, seconds(3, 3, 4, 8, 10)},
		{"a refusal that asks callers to back off", &upstream.Error{Outcome: upstream.Refused, RetryAfter: time.Hour}, seconds(3600, 3600)},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				svc.err = c.err
				for i, wait := range c.waits {
					if _, err := s.Read(t.Context(), 0); !errors.Is(err, c.err) || errors.As(err, new(*BackoffError)) {
						t.Fatalf("attempt %d: error is %v", i+1, err)
					}
					retryAt := time.Now().Add(wait)
					requireRemembered(t, s, c.err, retryAt)
					time.Sleep(wait - 1)
					requireRemembered(t, s, c.err, retryAt)
					if svc.count() != i+1 {
						t.Fatalf("%d exchanges, want %d", svc.count(), i+1)
					}
					time.Sleep(time.Nanosecond)
				}
			})
		})
	}
}

func requireRemembered(t *testing.T, s *Source, last error, retryAt time.Time) {
	t.Helper()
	_, ofRead := s.Read(t.Context(), 0)
	_, ofDedicated := s.Dedicated(t.Context(), 0)
	for method, err := range map[string]error{"Read": ofRead, "Dedicated": ofDedicated, "Replace": s.Replace(t.Context())} {
		var remembered *BackoffError
		if !errors.As(err, &remembered) || !errors.Is(err, last) {
			t.Fatalf("%s got past the memory of a failure: %v", method, err)
		}
		if !remembered.RetryAt.Equal(retryAt) {
			t.Fatalf("%s may be tried again in %s, want %s", method, time.Until(remembered.RetryAt), time.Until(retryAt))
		}
	}
}

func TestBackoff_successResetsIt(t *testing.T) {
	for name, call := range map[string]func(*testing.T, *Source) error{
		"a read":            func(t *testing.T, s *Source) error { _, err := s.Read(t.Context(), 0); return err },
		"a dedicated token": func(t *testing.T, s *Source) error { _, err := s.Dedicated(t.Context(), 0); return err },
		"a replacement":     func(t *testing.T, s *Source) error { return s.Replace(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				svc.err = errRefused
				for range 4 {
					if err := call(t, s); !errors.Is(err, errRefused) {
						t.Fatalf("error is %v", err)
					}
					time.Sleep(maxRefusedBackoff)
				}
				svc.set(func(svc *service) { svc.err = nil })
				if err := call(t, s); err != nil {
					t.Fatal(err)
				}
				svc.set(func(svc *service) { svc.err = errRefused })
				if _, err := s.Dedicated(t.Context(), 0); !errors.Is(err, errRefused) {
					t.Fatalf("error is %v", err)
				}
				requireRetryIn(t, s, firstRefusedBackoff)
			})
		})
	}
}

func requireRetryIn(t *testing.T, s *Source, wait time.Duration) {
	t.Helper()
	_, err := s.Dedicated(t.Context(), 0)
	var remembered *BackoffError
	if !errors.As(err, &remembered) || time.Until(remembered.RetryAt) != wait {
		t.Fatalf("error is %v, want one for another %s", err, wait)
	}
}

func TestBackoff_concurrentFailuresCountAsOne(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency, svc.err = time.Second, errRefused
		var callers sync.WaitGroup
		for i := range 20 {
			callers.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				if _, err := s.Dedicated(t.Context(), 0); !errors.Is(err, errRefused) {
					t.Errorf("error is %v", err)
				}
			})
		}
		callers.Wait()
		requireRetryIn(t, s, firstRefusedBackoff)
	})
}

// TestBackoff_longestRetryAfterCounts has a second failure arrive that asks for less.
func TestBackoff_longestRetryAfterCounts(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		var callers sync.WaitGroup
		for i, err := range []error{&upstream.Error{RetryAfter: 5 * time.Minute}, errDown} {
			svc.set(func(svc *service) { svc.latency, svc.err = time.Duration(i+1)*time.Second, err })
			callers.Go(func() { _, _ = s.Dedicated(t.Context(), 0) })
			synctest.Wait()
		}
		callers.Wait()
		requireRetryIn(t, s, 5*time.Minute-time.Second)
	})
}

// TestBackoff_callerWhoLeavesIsNoFailure: an exchange counts when the service has
// answered, not when its caller leaves.
func TestBackoff_callerWhoLeavesIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency, svc.err = time.Minute, errDown
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		started := time.Now()
		if _, err := s.Dedicated(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error is %v", err)
		}
		if took := time.Since(started); took != time.Second {
			t.Fatalf("giving up took %s", took)
		}
		if got := s.Status(); got != (Status{}) {
			t.Fatalf("status is %+v", got)
		}
		time.Sleep(svc.latency - time.Second)
		synctest.Wait()
		requireRetryIn(t, s, firstUnavailableBackoff)
	})
}

// TestBackoff_outlivesItsSources has each attempt made by a source of its own, as
// writes of a config do.
func TestBackoff_outlivesItsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{life: time.Hour, err: errRefused}
		backoff := &Backoff{}
		attempt := func() error {
			s := New(Options{Exchanger: ExchangeFunc(svc.exchange), Backoff: backoff})
			defer s.Close()
			return s.Replace(t.Context())
		}
		for i, wait := range []time.Duration{5, 10, 20, 40, 60, 60} {
			if err := attempt(); err != error(errRefused) {
				t.Fatalf("attempt %d: error is %v", i+1, err)
			}
			for range 20 {
				if err := attempt(); !errors.As(err, new(*BackoffError)) {
					t.Fatalf("another source got past the memory of failure %d: %v", i+1, err)
				}
			}
			if got := time.Until(backoff.Until()); got != wait*time.Second || svc.count() != i+1 {
				t.Fatalf("after failure %d the backoff is %s, after %d exchanges", i+1, got, svc.count())
			}
			time.Sleep(wait * time.Second)
		}
		svc.set(func(svc *service) { svc.err = nil })
		if err := attempt(); err != nil || !backoff.Until().IsZero() {
			t.Fatalf("after a success it lasts until %s (error %v)", backoff.Until(), err)
		}
	})
}

// TestBackoff_ofAnotherSourceIsKept has a source with a token in use that
// shares its key with another one, which fails.
func TestBackoff_ofAnotherSourceIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc, backoff := &service{life: time.Hour}, &Backoff{}
		s := New(Options{Exchanger: ExchangeFunc(svc.exchange), Backoff: backoff})
		defer s.Close()
		other := New(Options{Exchanger: ExchangeFunc(svc.exchange), Backoff: backoff})
		defer other.Close()
		first := mustRead(t, s)
		time.Sleep(time.Until(first.refreshAt()) - time.Second)
		svc.set(func(svc *service) { svc.err = &upstream.Error{RetryAfter: 10 * time.Second} })
		if _, err := other.Dedicated(t.Context(), 0); err == nil {
			t.Fatal("the exchange succeeded")
		}
		failedAt := time.Now()
		if got := s.Status(); got.Failures != 1 || !got.RetryAt.Equal(failedAt.Add(10*time.Second)) || got.LastError != nil {
			t.Errorf("status is %+v", got)
		}
		svc.set(func(svc *service) { svc.err = nil })
		time.Sleep(10*time.Second - 1)
		if got := svc.count(); got != 2 {
			t.Fatalf("%d exchanges before the backoff's end", got)
		}
		time.Sleep(time.Nanosecond)
		requireReadyToken(t, s, first.IssuedToken)
		if got := other.Status(); got.Failures != 0 {
			t.Errorf("after this source's success the other one tells of %d failures", got.Failures)
		}
	})
}

// TestBackoff_hangOfADedicatedExchangeCounts: it fails at its timeout, and that is
// remembered.
func TestBackoff_hangOfADedicatedExchangeCounts(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Hour
		started := time.Now()
		if _, err := s.Dedicated(t.Context(), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error is %v", err)
		}
		if took := time.Since(started); took != exchangeTimeout {
			t.Fatalf("it took %s", took)
		}
		requireRetryIn(t, s, firstUnavailableBackoff)
	})
}

func TestBackoffError_text(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := error(&BackoffError{Last: errRefused, RetryAt: time.Now().Add(1500 * time.Millisecond)})
		for _, want := range []string{"the next attempt is possible in 2 s", "in 1 s", "in 0 s", "in 0 s"} {
			if got := err.Error(); !strings.HasPrefix(got, errRefused.Error()) || !strings.HasSuffix(got, want) {
				t.Errorf("got %q, want %q at its end", got, want)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestStale_servedUntilShortlyBeforeItsEnd has the service be down.
func TestStale_servedUntilShortlyBeforeItsEnd(t *testing.T) {
	for _, c := range []struct {
		name         string
		life, margin time.Duration
		err          error
		retries      int
	}{
		{"the service of hour-long tokens", time.Hour, 10 * time.Second, errDown, 98},
		{"the service of short-lived tokens", 40 * time.Second, 4 * time.Second, errDown, 5},
		{"the service that refuses the key", time.Hour, 10 * time.Second, errRefused, 25},
		{"the service that asks callers to back off", time.Hour, 10 * time.Second, &upstream.Error{RetryAfter: time.Hour}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				svc.life = c.life
				first := mustRead(t, s)
				svc.set(func(svc *service) { svc.err = c.err })
				time.Sleep(time.Until(first.DueAt))
				last := first.ExpiresAt.Add(-c.margin)
				for time.Now().Before(last) {
					started := time.Now()
					a := mustRead(t, s)
					if !a.Stale || !errors.Is(a.Why, c.err) || a.ID != first.ID || time.Since(started) != 0 {
						t.Fatalf("%s before its end: stale %t, why %v, after %s", time.Until(first.ExpiresAt), a.Stale, a.Why, time.Since(started))
					}
					if a.RetryAt.After(last) || a.RetryAt.Before(time.Now()) {
						t.Fatalf("%s before its end the reader is asked to come back in %s", time.Until(first.ExpiresAt), time.Until(a.RetryAt))
					}
					if ttl := a.TTL(time.Now()); ttl < 1 || time.Duration(ttl-1)*time.Second > max(time.Until(a.RetryAt), (minStaleTTL-1)*time.Second) ||
						ttl > 1 && time.Duration(ttl)*time.Second > time.Until(a.ExpiresAt) {
						t.Fatalf("ttl is %d, %s before the retry", ttl, time.Until(a.RetryAt))
					}
					time.Sleep(min(100*time.Millisecond, time.Until(last)))
				}
				if _, err := s.Read(t.Context(), 0); !errors.Is(err, c.err) {
					t.Fatalf("at its end the error is %v", err)
				}
				if got := svc.count() - 1; got < 1 || got > c.retries+1 {
					t.Fatalf("%d exchanges, want %d or so", got, c.retries)
				}
			})
		})
	}
}

func TestStale_retryAtIsTheNextAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustUnread(t, s)
		svc.set(func(svc *service) { svc.err = &upstream.Error{RetryAfter: 90500 * time.Millisecond} })
		time.Sleep(time.Until(first.DueAt))
		a := mustRead(t, s)
		if !a.RetryAt.Equal(time.Now().Add(90500 * time.Millisecond)) {
			t.Errorf("it is told to come back in %s", time.Until(a.RetryAt))
		}
		if ttl := a.TTL(time.Now()); ttl != 91 {
			t.Errorf("ttl is %d", ttl)
		}
		if ttl := a.TTL(a.RetryAt.Add(time.Second)); ttl != minStaleTTL {
			t.Errorf("after the backoff ttl is %d", ttl)
		}
		svc.set(func(svc *service) { svc.err = nil })
		time.Sleep(time.Duration(a.TTL(time.Now())) * time.Second)
		if b := mustRead(t, s); b.Stale || b.ID == first.ID {
			t.Errorf("then it got %s, stale %t", b.ID, b.Stale)
		}
	})
}

// TestStale_recoveryNeedsNoReader has the retry in the background
// take a second, which the first reader would have to wait for otherwise.
func TestStale_recoveryNeedsNoReader(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		svc.set(func(svc *service) { svc.err = errDown })
		time.Sleep(time.Until(first.DueAt))
		svc.set(func(svc *service) { svc.err, svc.latency = nil, time.Second })
		time.Sleep(maxUnavailableBackoff + time.Second)
		requireReadyToken(t, s, first.IssuedToken)
	})
}

func requireReadyToken(t *testing.T, s *Source, old *IssuedToken) {
	t.Helper()
	synctest.Wait()
	started := time.Now()
	if a := mustRead(t, s); a.Stale || a.ID == old.ID {
		t.Errorf("got %s, stale %t", a.ID, a.Stale)
	}
	if waited := time.Since(started); waited != 0 {
		t.Errorf("the first reader waited %s", waited)
	}
}

func TestStale_readerCausesBackgroundRetries(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		old := mustUnread(t, s)
		svc.set(func(svc *service) { svc.err = errDown })
		time.Sleep(time.Until(old.DueAt))
		if a := mustRead(t, s); !a.Stale {
			t.Fatal("the token is not stale")
		}
		svc.set(func(svc *service) { svc.err, svc.latency = nil, time.Second })
		time.Sleep(firstUnavailableBackoff + time.Second)
		requireReadyToken(t, s, old)
	})
}

func TestRefresh_noRetryForAnUnreadToken(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustUnread(t, s)
		time.Sleep(10 * time.Minute)
		svc.set(func(svc *service) { svc.err = errDown })
		if _, err := s.Read(t.Context(), 54*time.Minute); !errors.Is(err, errDown) {
			t.Fatalf("error is %v", err)
		}
		time.Sleep(24 * time.Hour)
		if got := svc.count(); got != 2 {
			t.Fatalf("%d exchanges", got)
		}
	})
}

func TestRefresh_noRetryForAnExpiredToken(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		svc.set(func(svc *service) { svc.err = errDown })
		time.Sleep(time.Until(first.ExpiresAt))
		before := svc.count()
		time.Sleep(24 * time.Hour)
		if got := svc.count() - before; got != 0 {
			t.Fatalf("%d exchanges after the token's end", got)
		}
	})
}

func TestRefresh_backsOffAfterADedicatedFailure(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		time.Sleep(time.Until(first.refreshAt()) - time.Second)
		svc.set(func(svc *service) { svc.err = &upstream.Error{RetryAfter: 10 * time.Second} })
		if _, err := s.Dedicated(t.Context(), 0); err == nil {
			t.Fatal("the exchange succeeded")
		}
		svc.set(func(svc *service) { svc.err = nil })
		time.Sleep(10*time.Second - 1)
		if got := svc.count(); got != 2 {
			t.Fatalf("%d exchanges before the backoff's end", got)
		}
		time.Sleep(time.Nanosecond)
		requireReadyToken(t, s, first.IssuedToken)
	})
}

// TestRefresh_failureForMinTTLDoesNotHastenIt: the token is still fresh for readers
// without a min_ttl.
func TestRefresh_failureForMinTTLDoesNotHastenIt(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		time.Sleep(10 * time.Minute)
		svc.set(func(svc *service) { svc.err = errDown })
		if _, err := s.Read(t.Context(), 54*time.Minute); !errors.Is(err, errDown) {
			t.Fatalf("error is %v", err)
		}
		svc.set(func(svc *service) { svc.err = nil })
		time.Sleep(time.Until(first.refreshAt()) - 1)
		if got := svc.count(); got != 2 || mustRead(t, s).ID != first.ID {
			t.Fatalf("%d exchanges", got)
		}
		time.Sleep(time.Nanosecond)
		requireReadyToken(t, s, first.IssuedToken)
	})
}
