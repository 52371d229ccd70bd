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

// gauge counts the exchanges that are in flight, and the most that were.
type gauge struct {
	mu        sync.Mutex
	now, most int
}

func (g *gauge) over(exchange ExchangeFunc) ExchangeFunc {
	return func(ctx context.Context) (*tokenservice.Token, error) {
		g.add(1)
		defer g.add(-1)
		return exchange(ctx)
	}
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now += n
	g.most = max(g.most, g.now)
}

func (g *gauge) requireMost(t *testing.T, want int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.most != want {
		t.Errorf("%d exchanges were in flight at a time, want %d", g.most, want)
	}
}

// crowd has many callers ask for a dedicated token at once and counts what they get.
func crowd(t *testing.T, s *Source, callers int) (served, busy int) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	for range callers {
		all.Go(func() {
			_, err := s.Dedicated(t.Context(), 0)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				served++
			case errors.As(err, new(*BusyError)):
				busy++
			default:
				t.Errorf("error is %v", err)
			}
		})
	}
	all.Wait()
	return served, busy
}

// TestSlots_crowdIsServedSomeAtATime: the others get a *BusyError.
func TestSlots_crowdIsServedSomeAtATime(t *testing.T) {
	for latency, want := range map[time.Duration]int{
		100 * time.Millisecond: 300,
		900 * time.Millisecond: 34 * 7, // As many times as there are 0.9 s in the 30 s of the wait, and once at its start.
		9 * time.Second:        4 * 7,
		time.Minute:            7,
	} {
		t.Run(latency.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				var inFlight gauge
				s.exchanger = inFlight.over(svc.exchange)
				svc.latency = latency
				if served, busy := crowd(t, s, 300); served != want || busy != 300-want {
					t.Errorf("%d were served and %d told that all are busy", served, busy)
				}
				inFlight.requireMost(t, MaxExchanges-1)
			})
		})
	}
}

func TestSlots_waitEndsInTimeForTheResponse(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Hour
		for range MaxExchanges - 1 {
			go func() { _, _ = s.Dedicated(t.Context(), 0) }()
		}
		synctest.Wait()
		started := time.Now()
		_, err := s.Dedicated(t.Context(), 0)
		var busy *BusyError
		if !errors.As(err, &busy) || busy.Waited != slotTimeout || time.Since(started) != slotTimeout {
			t.Errorf("error is %v after %s", err, time.Since(started))
		}
		if got := s.Status(); got.LastError != nil || got.Failures != 0 {
			t.Errorf("status takes it for the service's failure: %+v", got)
		}
		// An exchange that waits ends no later than one that does not.
		time.Sleep(exchangeTimeout - slotTimeout - time.Second)
		if _, err := s.Dedicated(t.Context(), 0); !errors.Is(err, context.DeadlineExceeded) || time.Since(started) != exchangeTimeout {
			t.Errorf("error is %v after %s", err, time.Since(started))
		}
	})
}

func TestSlots_oneIsForSharedReaders(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		var inFlight gauge
		s.exchanger = inFlight.over(svc.exchange)
		svc.latency = time.Second
		var all sync.WaitGroup
		all.Go(func() { crowd(t, s, 100) })
		synctest.Wait()
		started := time.Now()
		mustRead(t, s)
		if took := time.Since(started); took != svc.latency {
			t.Errorf("a reader waited %s beside callers who want a token each", took)
		}
		all.Wait()
		inFlight.requireMost(t, MaxExchanges)
	})
}

// TestSlots_areThoseOfAllSourcesOfAConfig replaces the source again and again while
// its exchange is in flight, as writes of a config do.
func TestSlots_areThoseOfAllSourcesOfAConfig(t *testing.T) {
	for name, call := range callers() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var inFlight gauge
				svc, slots := &service{life: time.Hour, latency: time.Minute}, &Slots{}
				for range 20 {
					s := New(Options{Exchanger: inFlight.over(svc.exchange), Slots: slots})
					ended := make(chan error)
					go func() { ended <- call(t.Context(), s) }()
					synctest.Wait()
					s.Close()
					if err := <-ended; !errors.Is(err, ErrClosed) {
						t.Errorf("error is %v", err)
					}
				}
				want := MaxExchanges - 1
				if name == "a reader" {
					want = MaxExchanges
				}
				inFlight.requireMost(t, want)
				time.Sleep(svc.latency)
				synctest.Wait()
				if len(slots.byConfig) != 0 {
					t.Error("slots are not given back")
				}
			})
		})
	}
}

// TestSlots_areGivenBackAtTheEndOfTheLifetime has two configs with more callers than slots.
func TestSlots_areGivenBackAtTheEndOfTheLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc, slots := &service{life: time.Hour, latency: time.Hour}, &Slots{}
		lifetime, end := context.WithCancel(t.Context())
		for _, config := range []string{"a", "b"} {
			s := New(Options{Exchanger: ExchangeFunc(svc.exchange), Slots: slots, ConfigName: config, Lifetime: lifetime})
			for range 2 * MaxExchanges {
				go func() { _, _ = s.Dedicated(t.Context(), 0) }()
			}
		}
		synctest.Wait()
		if got := svc.count(); got != 2*(MaxExchanges-1) || len(slots.byConfig) != 2 {
			t.Errorf("%d exchanges of %d configs are under way", got, len(slots.byConfig))
		}
		end()
		synctest.Wait()
		if len(slots.byConfig) != 0 {
			t.Errorf("slots of %d configs are not given back", len(slots.byConfig))
		}
	})
}

// TestSlots_ofAReplacedSourceDoNotBlockReaders has the source in use find the
// slot for shared exchanges taken.
func TestSlots_ofAReplacedSourceDoNotBlockReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hanging, slots := &service{life: time.Hour, latency: time.Minute}, &Slots{}
		before := New(Options{Exchanger: ExchangeFunc(hanging.exchange), Slots: slots})
		go func() { _, _ = before.Read(t.Context(), 0) }()
		synctest.Wait()
		before.Close()
		svc := &service{life: time.Hour}
		after := New(Options{Exchanger: ExchangeFunc(svc.exchange), Slots: slots})
		defer after.Close()
		started := time.Now()
		mustRead(t, after)
		if took := time.Since(started); took != 0 {
			t.Errorf("a reader waited %s for the exchange of a source that was replaced", took)
		}
		time.Sleep(hanging.latency)
	})
}

func TestSlots_refusedKeyEndsTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency, svc.err = time.Second, errRefused
		var all sync.WaitGroup
		for range 300 {
			all.Go(func() {
				if _, err := s.Dedicated(t.Context(), 0); !errors.Is(err, errRefused) {
					t.Errorf("error is %v", err)
				}
			})
		}
		started := time.Now()
		all.Wait()
		if got := svc.count(); got != MaxExchanges-1 || time.Since(started) != svc.latency {
			t.Errorf("the key was sent %d times in %s", got, time.Since(started))
		}
		requireRetryIn(t, s, firstRefusedBackoff)
	})
}

// TestSlots_callersWhoLeaveGiveThemUp has callers queue and leave before somebody who
// stays.
func TestSlots_callersWhoLeaveGiveThemUp(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		leaving, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 100 {
			ctx := leaving
			if i < MaxExchanges-1 {
				ctx = t.Context()
			}
			all.Go(func() { _, _ = s.Dedicated(ctx, 0) })
			synctest.Wait()
		}
		leave()
		started := time.Now()
		if _, err := s.Dedicated(t.Context(), 0); err != nil || time.Since(started) != 2*svc.latency {
			t.Errorf("the caller who stays was served after %s, error %v", time.Since(started), err)
		}
		all.Wait()
		if got := svc.count(); got != MaxExchanges {
			t.Errorf("%d exchanges", got)
		}
		left, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Dedicated(left, 0); !errors.Is(err, context.Canceled) || svc.count() != MaxExchanges {
			t.Errorf("for a caller who had left before the error is %v, after %d exchanges", err, svc.count())
		}
	})
}

// TestSlots_areGrantedInTurn has callers come all the time, more than are served, and
// checks that none is overtaken.
func TestSlots_areGrantedInTurn(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		var all sync.WaitGroup
		var mu sync.Mutex
		last := -1
		for i := range 200 {
			all.Go(func() {
				_, err := s.Dedicated(t.Context(), 0)
				mu.Lock()
				defer mu.Unlock()
				if err != nil || i < last-MaxExchanges {
					t.Errorf("caller %d was served after caller %d, error %v", i, last, err)
				}
				last = max(last, i)
			})
			time.Sleep(130 * time.Millisecond)
		}
		all.Wait()
	})
}

// TestSlots_noRetryForAnExpiredToken has a background replacement find no slot until the
// token has ended.
func TestSlots_noRetryForAnExpiredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc, slots := &service{life: time.Minute}, &Slots{}
		s := New(Options{Exchanger: ExchangeFunc(svc.exchange), Slots: slots})
		defer s.Close()
		first := mustRead(t, s)
		free, err := slots.acquireShared("", t.Context().Done())
		if err != nil {
			t.Fatal(err)
		}
		for range MaxExchanges - 1 {
			if _, err := slots.acquireDedicated(t.Context(), "", t.Context().Done()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Until(first.DueAt))
		a := mustRead(t, s)
		if !a.Stale || a.Why != nil {
			t.Errorf("stale %t, why %v", a.Stale, a.Why)
		}
		if _, err := s.Read(t.Context(), 50*time.Second); !errors.As(err, new(*BusyError)) {
			t.Errorf("error is %v", err)
		}
		time.Sleep(time.Hour)
		free()
		time.Sleep(time.Hour)
		if got := svc.count(); got != 1 {
			t.Errorf("%d exchanges, the last for a token that is over", got)
		}
	})
}
