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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// service is a token service in the bubble: it issues tokens of a certain lifetime,
// takes its time, and fails when told.
type service struct {
	// watch is called at the start of each exchange.
	watch func(context.Context)
	// deaf exchanges do not hear that their context ended.
	deaf bool
	// wholeSeconds cuts the tokens' ends, as JWTs do.
	wholeSeconds bool
	// repeats hands out the last token again while it lives, and keepsEnd another one
	// that ends with it.
	repeats, keepsEnd bool

	mu        sync.Mutex
	life      time.Duration
	latency   time.Duration
	err       error
	exchanges int
	issued    int
	last      *tokenservice.Token
}

func (s *service) exchange(ctx context.Context) (*tokenservice.Token, error) {
	if s.watch != nil {
		s.watch(ctx)
	}
	s.mu.Lock()
	s.exchanges++
	n, life, latency, err := s.exchanges, s.life, s.latency, s.err
	s.mu.Unlock()
	ended := ctx.Done()
	if s.deaf {
		ended = nil
	}
	select {
	case <-time.After(latency):
	case <-ended:
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	expiresAt := time.Now().Add(life)
	if s.wholeSeconds {
		expiresAt = expiresAt.Truncate(time.Second)
	}
	return s.issue(&tokenservice.Token{Value: "jwt", ID: fmt.Sprint("token-", n), ExpiresAt: expiresAt}), nil
}

func (s *service) issue(token *tokenservice.Token) *tokenservice.Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued++
	switch alive := s.last != nil && time.Now().Before(s.last.ExpiresAt); {
	case alive && s.repeats:
		return s.last
	case alive && s.keepsEnd:
		token.ExpiresAt = s.last.ExpiresAt
	}
	s.last = token
	return token
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
	errDown    = &upstream.Error{Outcome: upstream.Unavailable, Reason: "is down"}
	errRefused = &upstream.Error{Outcome: upstream.Refused, Reason: "refused the API key"}
)

// bubble runs a test with a source of hour-long tokens and ends its lifetime, so that
// synctest fails on whatever outlives that.
func bubble(t *testing.T, test func(t *testing.T, s *Source, svc *service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		lifetime, end := context.WithCancel(context.Background())
		defer end()
		svc := &service{life: time.Hour}
		s := New(Options{Exchanger: ExchangeFunc(svc.exchange), Lifetime: lifetime})
		defer s.Close()
		test(t, s, svc)
	})
}

func mustRead(t *testing.T, s *Source) Response {
	t.Helper()
	a, err := s.Read(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustGetDedicated(t *testing.T, s *Source) *IssuedToken {
	t.Helper()
	token, err := s.Dedicated(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// mustUnread returns a shared token that nobody has read, so that nothing
// replaces it in the background.
func mustUnread(t *testing.T, s *Source) *IssuedToken {
	t.Helper()
	if err := s.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.Current()
}

func requireSilent(t *testing.T, err error, secret string) {
	t.Helper()
	if err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
		t.Errorf("error is %v", err)
	}
}

// TestRead_makesTheFirstExchange: nothing is exchanged before somebody reads.
func TestRead_makesTheFirstExchange(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		time.Sleep(24 * time.Hour)
		if svc.count() != 0 || s.Current() != nil {
			t.Fatalf("%d exchanges, current is %v", svc.count(), s.Current())
		}
	})
}

func TestRefresh_tokenThatWasReadIsReplacedEarly(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		for range 20 {
			a := mustRead(t, s)
			time.Sleep(time.Until(a.DueAt))
			requireReadyToken(t, s, a.IssuedToken)
		}
		if got := svc.count(); got != 21 {
			t.Fatalf("%d exchanges for 21 tokens", got)
		}
	})
}

func TestRefresh_readersDoNotWaitForIt(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		svc.set(func(svc *service) { svc.latency = time.Minute })
		time.Sleep(time.Until(first.refreshAt()))
		synctest.Wait()
		started := time.Now()
		if a := mustRead(t, s); a.ID != first.ID || a.Stale || time.Since(started) != 0 {
			t.Errorf("got %s, stale %t, after %s", a.ID, a.Stale, time.Since(started))
		}
		if got := svc.count(); got != 2 {
			t.Errorf("%d exchanges", got)
		}
	})
}

// TestRefresh_tooEarlyIsSetAnew as it would be for a token that takes the place of one that is due.
func TestRefresh_tooEarlyIsSetAnew(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		token := mustRead(t, s)
		s.refresh()
		synctest.Wait()
		if got := svc.count(); got != 1 {
			t.Errorf("%d exchanges", got)
		}
		time.Sleep(time.Until(token.DueAt))
		if got := svc.count(); got != 2 {
			t.Errorf("%d exchanges when the token is due", got)
		}
	})
}

func TestRefresh_unreadTokenIsNotReplaced(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustRead(t, s)
		time.Sleep(48 * time.Hour) // The second token was issued ahead, and never read.
		if got := svc.count(); got != 2 {
			t.Fatalf("%d exchanges", got)
		}
		if s.Current() != nil {
			t.Fatal("a dead token is current")
		}
	})
}

// TestRefresh_lateReaderOfAReplacedToken plays a reader that loads the token and is
// overtaken before it marks it read. The successor is due before the overtaken token would be.
func TestRefresh_lateReaderOfAReplacedToken(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		overtaken := mustUnread(t, s)
		time.Sleep(time.Minute)
		svc.life = 30 * time.Minute
		mustUnread(t, s)
		successor := mustRead(t, s)
		s.markRead(overtaken)
		time.Sleep(time.Until(successor.DueAt))
		requireReadyToken(t, s, successor.IssuedToken)
	})
}

func TestDedicated_noOtherCallerGetsIt(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		var (
			callers sync.WaitGroup
			seen    sync.Map
		)
		shared := mustRead(t, s).ID
		for i := range 50 {
			callers.Go(func() {
				token, err := s.Dedicated(t.Context(), 0)
				if err != nil {
					t.Error(err)
					return
				}
				if _, again := seen.LoadOrStore(token.ID, i); again || token.ID == shared {
					t.Errorf("%s was handed out twice", token.ID)
				}
			})
			callers.Go(func() {
				if a, err := s.Read(t.Context(), 0); err != nil || a.ID != shared {
					t.Errorf("a reader got %v, error %v", a, err)
				}
			})
		}
		callers.Wait()
		if got := svc.count(); got != 51 {
			t.Errorf("%d exchanges for 51 tokens", got)
		}
		if got := mustRead(t, s).ID; got != shared {
			t.Errorf("the shared token became %s", got)
		}
	})
}

func TestDedicated_sharesNoExchangeWithAColdReader(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.latency = time.Second
		shared := make(chan Response)
		go func() {
			a, _ := s.Read(t.Context(), 0)
			shared <- a
		}()
		synctest.Wait()
		if dedicated := mustGetDedicated(t, s); dedicated.ID == (<-shared).ID {
			t.Fatalf("%s was handed out twice", dedicated.ID)
		}
	})
}

func TestReplace_sharesTheNewToken(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustRead(t, s)
		if err := s.Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := mustRead(t, s)
		if a.ID != "token-2" || svc.count() != 2 {
			t.Fatalf("got %s after %d exchanges", a.ID, svc.count())
		}
		time.Sleep(time.Until(a.DueAt))
		requireReadyToken(t, s, a.IssuedToken)
	})
}

func TestReplace_failureKeepsTheSharedToken(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		first := mustRead(t, s)
		svc.set(func(svc *service) { svc.err = errRefused })
		if err := s.Replace(t.Context()); err != error(errRefused) {
			t.Fatalf("error is %v", err)
		}
		if a := mustRead(t, s); a.ID != first.ID || a.Stale {
			t.Fatalf("got %s, stale %t", a.ID, a.Stale)
		}
	})
}

func TestDrop_onlyTheNamedToken(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		s.Drop("")
		first := mustRead(t, s)
		s.Drop("another")
		s.Drop(mustGetDedicated(t, s).ID)
		if mustRead(t, s).ID != first.ID {
			t.Fatal("another token's drop dropped this one")
		}
		s.Drop(first.ID)
		if s.Current() != nil {
			t.Fatal("the token is still current")
		}
		second := mustRead(t, s)
		if second.ID == first.ID {
			t.Fatal("the token is still shared")
		}
		s.Drop(first.ID)
		if mustRead(t, s).ID != second.ID || svc.count() != 3 {
			t.Fatal("a second drop dropped the successor")
		}
	})
}

// TestDrop_costsTenExchangesAtMost has a reader drop whatever it gets, all the time.
func TestDrop_costsTenExchangesAtMost(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		var at []time.Time
		svc.watch = func(context.Context) { at = append(at, time.Now()) }
		for range 3 * 3600 {
			s.Drop(mustRead(t, s).ID)
			time.Sleep(time.Second)
		}
		requireAtMost(t, at[1:], 10, time.Hour-time.Second) // The first was made for nobody's drop.
		if len(at) < 30 {
			t.Errorf("%d exchanges: a token stays shared for longer than it has to", len(at))
		}
	})
}

// TestDrop_thatWaitsCountsForASuccessor has a source be replaced, as by a write of the
// config, while its token waits to be dropped.
func TestDrop_thatWaitsCountsForASuccessor(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		s.Drop(mustRead(t, s).ID)
		second := mustRead(t, s)
		s.Drop(second.ID)
		if mustRead(t, s).ID != second.ID {
			t.Fatal("it was dropped at once")
		}
		successor := New(Options{Exchanger: ExchangeFunc(svc.exchange), Current: s.Current()})
		defer successor.Close()
		if mustRead(t, successor).ID == second.ID {
			t.Error("a token that was dropped is shared by the successor")
		}
		time.Sleep(time.Hour / 10)
		synctest.Wait()
		if mustRead(t, s).ID == second.ID {
			t.Error("it is shared for longer than a tenth of its life")
		}
	})
}

func TestDrop_noReplacementInTheBackground(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		s.Drop(mustRead(t, s).ID)
		time.Sleep(24 * time.Hour)
		if got := svc.count(); got != 1 {
			t.Fatalf("%d exchanges", got)
		}
	})
}

func TestClose_methodsAreSafeAndMakeNoCall(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		token := mustRead(t, s).IssuedToken
		s.Close()
		if _, err := s.Read(t.Context(), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("the error of Read is %v", err)
		}
		if _, err := s.Dedicated(t.Context(), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("the error of Dedicated is %v", err)
		}
		if err := s.Replace(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("the error of Replace is %v", err)
		}
		if s.Current() != nil {
			t.Error("there is a current token")
		}
		s.markRead(token)
		s.refresh()
		s.Drop(token.ID)
		s.Close()
		time.Sleep(24 * time.Hour)
		if got := svc.count(); got != 1 {
			t.Errorf("%d exchanges", got)
		}
	})
}

// TestClose_endsWaits of those who began to wait before, and of those who were about to.
func TestClose_endsWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		mustRead(t, s)
		if s.closing != nil {
			t.Error("a channel is kept for nobody")
		}
		before, leave := s.untilClosed()
		s.Close()
		<-before
		leave()
		after, done := s.untilClosed()
		defer done()
		<-after
	})
}

func TestClose_leavesNoTimer(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *Source, *service){
		"before a token's replacement": func(t *testing.T, s *Source, _ *service) { mustRead(t, s) },
		"before a retry": func(t *testing.T, s *Source, svc *service) {
			first := mustRead(t, s)
			svc.set(func(svc *service) { svc.err = errRefused })
			time.Sleep(time.Until(first.DueAt))
			mustRead(t, s)
		},
		"before a drop": func(t *testing.T, s *Source, _ *service) {
			s.Drop(mustRead(t, s).ID)
			s.Drop(mustRead(t, s).ID)
		},
		"with a reader that is late": func(t *testing.T, s *Source, _ *service) {
			token := mustUnread(t, s)
			mustRead(t, s)
			s.Close()
			token.wasRead.Store(false)
			s.markRead(token)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				prepare(t, s, svc)
				s.Close()
				if s.refresher.timer.Stop() || s.dropTimer != nil && s.dropTimer.Stop() {
					t.Fatal("a timer was still armed")
				}
			})
		})
	}
}

// history plays a random sequence of everything that can happen to a source and
// judges each step by what readers and the service may rely on.
type history struct {
	*testing.T
	source *Source
	svc    *service
	random *rand.Rand

	// minTTL is what the read in progress asks for.
	minTTL atomic.Int64
	// asked counts the exchanges that callers asked for by dedicated tokens, drops and
	// reads with a min_ttl.
	asked int
	// gone are tokens that were dropped or dedicated to one caller: no reader gets them.
	gone map[string]bool
	// until is when each token's readers were told to come back for another.
	until map[string]time.Time
}

// dedicatedExchange marks the context of a call of Dedicated.
type dedicatedExchange struct{}

// TestSource_randomHistories: each step keeps what readers and the service rely on.
func TestSource_randomHistories(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &history{T: t, random: rand.New(rand.NewPCG(seed, 0)), gone: map[string]bool{}, until: map[string]time.Time{}}
				longest := []time.Duration{20 * time.Second, time.Hour, 24 * time.Hour}[h.random.IntN(3)]
				h.svc = &service{life: 2*time.Second + h.upTo(longest), watch: h.judgeExchange}
				lifetime, end := context.WithCancel(context.Background())
				defer end()
				h.source = New(Options{Exchanger: ExchangeFunc(h.svc.exchange), RefreshBefore: h.upTo(h.svc.life) * time.Duration(h.random.IntN(2)), Lifetime: lifetime})
				defer h.source.Close()
				h.play()
			})
		})
	}
}

func (h *history) upTo(d time.Duration) time.Duration {
	return time.Duration(h.random.Int64N(int64(d) + 1))
}

func (h *history) play() {
	started := time.Now()
	for range 200 {
		switch h.random.IntN(9) {
		case 0:
			err := []error{nil, nil, errDown, errRefused, &upstream.Error{RetryAfter: h.upTo(5 * time.Minute)}}[h.random.IntN(5)]
			h.svc.set(func(svc *service) { svc.err = err })
		case 1:
			latency := h.upTo([]time.Duration{0, time.Second, 10 * time.Second, 2 * exchangeTimeout}[h.random.IntN(4)])
			h.svc.set(func(svc *service) { svc.latency = latency })
		case 2:
			time.Sleep(h.upTo(h.svc.life))
		case 3:
			time.Sleep(h.upTo(10 * time.Second))
		case 4:
			h.getDedicated()
		case 5:
			if current := h.source.Current(); current != nil && h.random.IntN(2) == 0 {
				h.asked++
				h.source.Drop(current.ID)
				h.gone[current.ID] = h.source.Current() == nil // Else it will be soon.
			}
		case 6:
			h.read(h.upTo(h.svc.life + time.Second))
		default:
			h.read(0)
		}
		synctest.Wait() // Whatever a step started has begun.
		h.minTTL.Store(0)
	}
	// A token is replaced at nine twentieths of its life at the earliest.
	replacements := int(time.Since(started)/(h.svc.life*9/20)) + 1
	h.svc.set(func(svc *service) {
		if svc.issued > h.asked+replacements {
			h.Errorf("%d tokens were issued, at most %d make sense", svc.issued, h.asked+replacements)
		}
	})
}

// judgeExchange fails on an exchange that nothing calls for.
func (h *history) judgeExchange(ctx context.Context) {
	s, now := h.source, time.Now()
	s.mu.Lock()
	err := s.backoff.Check()
	s.mu.Unlock()
	if err != nil {
		h.Errorf("an exchange while a failure is remembered: %v", err)
	}
	if ctx.Value(dedicatedExchange{}) != nil {
		return
	}
	current, minTTL := s.Current(), time.Duration(h.minTTL.Load())
	if current != nil && now.Before(current.refreshAt()) && current.ExpiresAt.Sub(now) >= minTTL {
		h.Errorf("an exchange %s before the token's replacement, for a reader who asked for %s", current.refreshAt().Sub(now), minTTL)
	}
}

func (h *history) getDedicated() {
	h.asked++
	ctx, cancel := h.callerContext()
	defer cancel()
	token, err := h.source.Dedicated(context.WithValue(ctx, dedicatedExchange{}, true), 0)
	if err != nil {
		h.judgeError(ctx, err)
		return
	}
	if h.gone[token.ID] || !h.until[token.ID].IsZero() {
		h.Fatalf("%s was issued twice", token.ID)
	}
	h.gone[token.ID] = true
	if !time.Now().Before(token.ExpiresAt) {
		h.Fatal("an expired token was issued")
	}
}

// callerContext mostly has no deadline.
func (h *history) callerContext() (context.Context, context.CancelFunc) {
	if h.random.IntN(5) != 0 {
		return h.Context(), func() {}
	}
	return context.WithTimeout(h.Context(), h.upTo(5*time.Second))
}

func (h *history) read(minTTL time.Duration) {
	if minTTL > 0 {
		h.asked++
	}
	h.minTTL.Store(int64(minTTL))
	ctx, cancel := h.callerContext()
	defer cancel()
	able := h.serviceIsAble()
	a, err := h.source.Read(ctx, minTTL)
	switch {
	case err != nil && able && ctx.Err() == nil && !errors.As(err, new(*TooShortError)):
		h.Fatalf("the service is well, and the error is %v", err)
	case err != nil:
		h.judgeError(ctx, err)
	case a.Stale && able:
		h.Fatalf("the service is well, and the reader got an old token: %v", a.Why)
	default:
		h.judgeResponse(a, minTTL)
	}
}

// serviceIsAble says whether a read that starts now gets a new token within a
// reader's wait for a newer one.
func (h *history) serviceIsAble() (able bool) {
	h.svc.set(func(svc *service) { able = svc.err == nil && svc.latency < staleTimeout })
	h.source.mu.Lock()
	defer h.source.mu.Unlock()
	remembered := h.source.backoff.Check() != nil
	return able && !remembered && h.source.sharedExchange == nil
}

func (h *history) judgeResponse(a Response, minTTL time.Duration) {
	now := time.Now()
	left := a.ExpiresAt.Sub(now)
	if left <= 0 || left < minTTL {
		h.Fatalf("a token with %s left was handed out for %s", left, minTTL)
	}
	if h.gone[a.ID] {
		h.Fatalf("%s was dropped or is somebody's own", a.ID)
	}
	ttl := a.TTL(now)
	if ttl < 1 || ttl > int64(h.svc.life/time.Second)+1 {
		h.Fatalf("ttl is %d", ttl)
	}
	if a.Stale {
		h.judgeStale(a, now)
		return
	}
	if !now.Before(a.DueAt) {
		h.Fatal("a token that is due was handed out as fresh")
	}
	if until, told := h.until[a.ID]; !told {
		h.until[a.ID] = now.Add(time.Duration(ttl) * time.Second)
	} else if !now.Before(until) {
		h.Fatal("the reader was promised another token by now")
	}
}

func (h *history) judgeStale(a Response, now time.Time) {
	margin := min(expiryMargin, a.life()/10)
	if left := a.ExpiresAt.Sub(now); left <= margin {
		h.Fatalf("an old token was handed out %s before its end", left)
	}
	if now.Before(a.DueAt) {
		h.Fatal("a token that is not due was handed out as an old one")
	}
	if a.RetryAt.After(a.ExpiresAt.Add(-margin)) || a.RetryAt.Before(now) {
		h.Fatalf("the reader is told to come back in %s", a.RetryAt.Sub(now))
	}
	if errors.Is(a.Why, errSlow) || errors.Is(a.Why, context.Canceled) {
		h.Fatalf("the reader is told that %v", a.Why)
	}
}

func (h *history) judgeError(ctx context.Context, err error) {
	var (
		failed *upstream.Error
		short  *TooShortError
	)
	switch {
	case errors.As(err, &failed), errors.As(err, &short):
	case errors.Is(err, context.DeadlineExceeded): // The caller's, or that of a shared exchange.
	default:
		h.Fatalf("error is %v while the caller's context says %v", err, ctx.Err())
	}
}

// TestSource_crowdSharesOneExchangeAtATime lets fifty callers do as they like at once.
func TestSource_crowdSharesOneExchangeAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		var underWay atomic.Int64
		svc.life = time.Minute
		svc.latency = 100 * time.Millisecond
		s.exchanger = ExchangeFunc(func(ctx context.Context) (*tokenservice.Token, error) {
			if ctx.Value(dedicatedExchange{}) == nil {
				if underWay.Add(1) != 1 {
					t.Error("two shared exchanges are under way")
				}
				defer underWay.Add(-1)
			}
			return svc.exchange(ctx)
		})
		var callers sync.WaitGroup
		for seed := range uint64(50) {
			callers.Go(func() { actAtRandom(t, s, svc, rand.New(rand.NewPCG(seed, 1))) })
		}
		callers.Wait()
	})
}

func actAtRandom(t *testing.T, s *Source, svc *service, random *rand.Rand) {
	for range 100 {
		time.Sleep(time.Duration(random.Int64N(int64(2 * time.Second))))
		switch random.IntN(12) {
		case 0:
			_, _ = s.Dedicated(context.WithValue(t.Context(), dedicatedExchange{}, true), 0)
		case 1:
			if current := s.Current(); current != nil {
				s.Drop(current.ID)
			}
		case 2:
			svc.set(func(svc *service) { svc.err = []error{nil, nil, errDown}[random.IntN(3)] })
		default:
			minTTL := time.Duration(random.Int64N(int64(50*time.Second))) * time.Duration(random.IntN(2))
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.Int64N(int64(time.Second))))
			if a, err := s.Read(ctx, minTTL); err == nil && time.Until(a.ExpiresAt) < max(minTTL, 1) {
				t.Errorf("a token with %s left was handed out for %s", time.Until(a.ExpiresAt), minTTL)
			}
			cancel()
		}
	}
}

func TestRead_freshTokenAllocatesNothing(t *testing.T) {
	svc := &service{life: time.Hour}
	s := New(Options{Exchanger: ExchangeFunc(svc.exchange)})
	defer s.Close()
	mustRead(t, s)
	ctx := context.Background()
	if got := testing.AllocsPerRun(1000, func() { _, _ = s.Read(ctx, time.Minute) }); got != 0 {
		t.Fatalf("a read makes %v allocations", got)
	}
}

func BenchmarkRead_freshToken(b *testing.B) {
	svc := &service{life: time.Hour}
	s := New(Options{Exchanger: ExchangeFunc(svc.exchange)})
	defer s.Close()
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Read(ctx, 0); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func TestNew_currentTokenInUseIsRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{life: time.Hour}
		before := New(Options{Exchanger: ExchangeFunc(svc.exchange)})
		mustRead(t, before)
		after := New(Options{Exchanger: ExchangeFunc(svc.exchange), Current: before.Current()})
		defer after.Close()
		before.Close()
		time.Sleep(time.Until(after.Current().DueAt))
		if got := svc.count(); got != 2 {
			t.Fatalf("%d exchanges", got)
		}
	})
}

// sharedAndDedicated are exchanges whose tokens' ids say which of the two it was.
type sharedAndDedicated struct{}

func (sharedAndDedicated) Exchange(context.Context) (*tokenservice.Token, error) {
	return &tokenservice.Token{ID: "shared", ExpiresAt: time.Now().Add(time.Hour)}, nil
}

func (sharedAndDedicated) Dedicated(context.Context) (*tokenservice.Token, error) {
	return &tokenservice.Token{ID: "dedicated", ExpiresAt: time.Now().Add(time.Hour)}, nil
}

// TestDedicated_hasAnExchangeOfItsOwn where the source is given one.
func TestDedicated_hasAnExchangeOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Exchanger: sharedAndDedicated{}})
		defer s.Close()
		if s.IsFresh(0) {
			t.Error("a token is fresh that nobody has got")
		}
		shared := mustRead(t, s)
		own, err := s.Dedicated(t.Context(), 0)
		if err != nil || shared.ID != "shared" || own.ID != "dedicated" || !s.IsFresh(0) || s.IsFresh(time.Hour) {
			t.Errorf("readers share %v, and one has %v; error %v", shared.ID, own, err)
		}
	})
}

// TestNewIssuedTokenSince_dueFromItsIssue takes a token that was got before.
func TestNewIssuedTokenSince_dueFromItsIssue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		token := NewIssuedTokenSince(now.Add(-time.Hour), &tokenservice.Token{ExpiresAt: now.Add(7 * time.Hour)}, 0)
		if want := now.Add(5 * time.Hour); !token.DueAt.Equal(want) {
			t.Errorf("it is due at %s, not at %s", token.DueAt, want)
		}
	})
}
