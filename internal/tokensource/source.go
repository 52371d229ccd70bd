// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package tokensource keeps one current token for all the readers of a config.
//
// Readers share a token until it is due; a token that somebody read is replaced
// shortly before that, in the background. Callers that must wait share one
// exchange, which none of them can end by giving up. When the service fails, the
// old token is served, with a notice, until shortly before its end, and retries
// back off.
//
// The package makes no call of its own: what it knows of a service is a function
// that buys a token.
package tokensource

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

const (
	// exchangeTimeout bounds a shared exchange, retries included. It ends before
	// Vault's own 90 s request limit, so that waiting readers see why it failed.
	exchangeTimeout = 80 * time.Second

	// patience is how long a reader waits for a newer token while it could be
	// handed the old one.
	patience = 3 * time.Second

	// expiryMargin is how long before its end an old token is no longer handed
	// out; tokens that live less than ten times as long give up a tenth.
	expiryMargin = 10 * time.Second
)

// ErrClosed is the answer of a source that was replaced or closed meanwhile.
var ErrClosed = errors.New("token source is closed")

// ExchangeFunc buys one token. It must end when its context does.
type ExchangeFunc func(context.Context) (*tokenservice.Token, error)

// Options configure a Source.
type Options struct {
	Exchange ExchangeFunc
	// RefreshBefore is how long before its expiry a token is replaced; 0 is a
	// quarter of the token's life. Less than a second counts as a second, more
	// than half of the token's life as half.
	RefreshBefore time.Duration
	// Current is a token that was already bought and is to be shared; it may be nil.
	Current *Lease
}

// Lease is a token together with the times that govern its sharing.
type Lease struct {
	*tokenservice.Token
	// BoughtAt is when the exchange that bought the token ended.
	BoughtAt time.Time
	// DueAt is when readers are to get a newer one.
	DueAt time.Time

	refreshAt time.Time
	wanted    atomic.Bool
}

// Answer is what a reader gets.
type Answer struct {
	*Lease
	// Stale says that the token is past due because no newer one could be bought.
	// Why is then the last failure, or nil while an exchange is still under way.
	Stale bool
	Why   error
	// RetryAt is when a reader of a stale token should ask again. The token
	// outlives it.
	RetryAt time.Time
}

// TTL is the whole seconds, rounded up, after which the reader should ask again.
func (a Answer) TTL(now time.Time) int64 {
	if a.Stale {
		return max(seconds(a.RetryAt.Sub(now)), 1)
	}
	return a.Lease.TTL(now)
}

// BackoffError is the answer while a failure is remembered and no call is made.
type BackoffError struct {
	// Last is the failure that is remembered.
	Last error
	// RetryAt is when the service will be asked again.
	RetryAt time.Time
}

// Error is the remembered failure and the time until the next attempt.
func (e *BackoffError) Error() string {
	wait := max(time.Until(e.RetryAt), 0)
	return fmt.Sprintf("%s; the next attempt is possible in %d s", e.Last, seconds(wait))
}

// Unwrap returns the remembered failure.
func (e *BackoffError) Unwrap() error { return e.Last }

// TooShortError is the answer to a reader that asks for more life than the
// service's tokens have.
type TooShortError struct {
	// Life is how long a token lives when it is new.
	Life time.Duration
	// Least is what the reader asked for.
	Least time.Duration
}

func (e *TooShortError) Error() string {
	return fmt.Sprintf("min_ttl of %s is more than the service's tokens live (%s)", e.Least, e.Life.Truncate(time.Second))
}

// Source is the current token of one config. Its methods may be called from many
// goroutines. Close it to end what it does in the background.
type Source struct {
	exchange      ExchangeFunc
	refreshBefore time.Duration
	ctx           context.Context
	cancel        context.CancelFunc

	// current is read without the lock by readers of a fresh token.
	current atomic.Pointer[Lease]

	mu       sync.Mutex
	flight   *flight
	backoff  backoff
	outcomes outcomes
	timer    *time.Timer
}

// flight is one exchange that any number of readers wait for.
type flight struct {
	done  chan struct{}
	lease *Lease
	err   error
}

// New returns a source. It buys nothing before somebody reads.
func New(o Options) *Source {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Source{exchange: o.Exchange, refreshBefore: o.RefreshBefore, ctx: ctx, cancel: cancel}
	if o.Current != nil {
		lease := o.Current.shared(o.RefreshBefore)
		s.current.Store(lease)
		s.outcomes.lastSuccess = lease.BoughtAt
		if o.Current.wanted.Load() {
			s.want(lease)
		}
	}
	return s
}

// Close ends the background work and fails the readers that wait with ErrClosed.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
	s.current.Store(nil)
	if s.timer != nil {
		s.timer.Stop()
	}
}

// Current returns the shared token, or nil if there is none that still lives.
func (s *Source) Current() *Lease {
	lease := s.current.Load()
	if lease == nil || !time.Now().Before(lease.ExpiresAt) {
		return nil
	}
	return lease
}

// Drop forgets the shared token if it is the one called id, so that the next
// reader gets another.
func (s *Source) Drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease := s.current.Load(); lease != nil && lease.ID == id {
		s.current.Store(nil)
	}
}

// Read returns the shared token, which lives for at least least longer. It waits
// for the service only if there is no fresh one. Errors are those of the
// exchange, *BackoffError, *TooShortError, ErrClosed or ctx's.
func (s *Source) Read(ctx context.Context, least time.Duration) (Answer, error) {
	now := time.Now()
	if lease := s.current.Load(); lease != nil && lease.fresh(now, least) {
		s.want(lease)
		return Answer{Lease: lease}, nil
	}
	return s.readSlowly(ctx, least)
}

func (s *Source) readSlowly(ctx context.Context, least time.Duration) (Answer, error) {
	old, f, err := s.join(least)
	if err != nil {
		return Answer{}, err
	}
	if f == nil {
		s.want(old)
		return Answer{Lease: old}, nil
	}
	fallback := old != nil && old.presentable(time.Now(), least)
	err = f.wait(ctx, s.ctx, fallback)
	fallback = fallback && old.presentable(time.Now(), least)
	if errors.Is(err, errPatience) && !fallback {
		err = f.wait(ctx, s.ctx, false) // The old token came too close to its end.
	}
	switch {
	case s.ctx.Err() != nil:
		return Answer{}, ErrClosed
	case err == nil:
		return s.deliver(f.lease, least)
	case fallback && ctx.Err() == nil:
		return s.stale(old, err), nil
	default:
		return Answer{}, err
	}
}

// join finds out, at one instant, what a reader has to do: take the lease that
// is returned without a flight, or wait for the flight, with the lease to fall
// back on. A failure that is remembered counts as a flight that has ended.
func (s *Source) join(least time.Duration) (*Lease, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, nil, ErrClosed
	}
	now := time.Now()
	lease := s.current.Load()
	if lease != nil && lease.fresh(now, least) {
		return lease, nil, nil
	}
	if lease != nil && now.Before(lease.DueAt) {
		if err := lease.enough(least); err != nil {
			return nil, nil, err
		}
	}
	if s.flight == nil {
		if err := s.backoff.check(now); err != nil {
			return lease, endedFlight(err), nil
		}
		s.takeOff()
	}
	return lease, s.flight, nil
}

func (s *Source) deliver(lease *Lease, least time.Duration) (Answer, error) {
	if err := lease.enough(least); err != nil {
		return Answer{}, err
	}
	s.want(lease)
	return Answer{Lease: lease}, nil
}

// stale wraps an old token for a reader. While the exchange is under way or the
// back-off is over the reader is asked to come back in a second, and never later
// than the token may be handed out.
func (s *Source) stale(old *Lease, why error) Answer {
	a := Answer{Lease: old, Stale: true, Why: why, RetryAt: time.Now().Add(time.Second)}
	if errors.Is(why, errPatience) {
		a.Why = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old.wanted.CompareAndSwap(false, true) {
		s.retryWhileOldLives()
	}
	a.RetryAt = later(a.RetryAt, s.backoff.until)
	if last := old.lastCall(); last.Before(a.RetryAt) {
		a.RetryAt = last
	}
	return a
}

// Replace buys a token with ctx and shares it, whatever there was before.
func (s *Source) Replace(ctx context.Context) error {
	lease, err := s.Buy(ctx, 0)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	s.current.Store(lease)
	return nil
}

// Buy returns a token that no other caller gets and that lives for at least
// least. It respects the back-off and adds to it, and ends with ctx.
func (s *Source) Buy(ctx context.Context, least time.Duration) (*Lease, error) {
	lease, err := s.buyAlone(ctx)
	if err != nil {
		return nil, err
	}
	if err := lease.enough(least); err != nil {
		return nil, err
	}
	return lease, nil
}

func (s *Source) buyAlone(ctx context.Context) (*Lease, error) {
	if err := s.mayBuy(); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	lease, err := s.buy(bounded)
	if s.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		return lease, err // The caller gave up, which says nothing about the service.
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record(err)
	return lease, err
}

func (s *Source) mayBuy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	return s.backoff.check(time.Now())
}

// takeOff starts an exchange in a goroutine of its own, so that it belongs to
// no reader. The caller holds the lock.
func (s *Source) takeOff() {
	f := &flight{done: make(chan struct{})}
	s.flight = f
	go func() {
		ctx, cancel := context.WithTimeout(s.ctx, exchangeTimeout)
		defer cancel()
		f.lease, f.err = s.buy(ctx)
		s.land(f)
	}()
}

// land publishes a flight's outcome and lets its readers go.
func (s *Source) land(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	s.flight = nil
	if s.ctx.Err() != nil {
		f.lease, f.err = nil, ErrClosed
		return
	}
	s.record(f.err)
	if f.err == nil {
		s.current.Store(f.lease)
		return
	}
	s.retryWhileOldLives()
}

// retryWhileOldLives arms the timer for another attempt at the back-off's end, or
// when the token is to be replaced if that is later, if the token is wanted and
// will still be alive then. The caller holds the lock.
func (s *Source) retryWhileOldLives() {
	old := s.current.Load()
	if old == nil || !old.wanted.Load() || !old.presentable(s.backoff.until, 0) {
		return
	}
	s.arm(old, later(s.backoff.until, old.refreshAt))
}

// want marks a token as read, which arms its replacement once. A reader may come
// with a token that was replaced meanwhile, whose successor's timer it leaves alone.
func (s *Source) want(lease *Lease) {
	if lease.wanted.Load() || !lease.wanted.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() == lease {
		s.arm(lease, lease.refreshAt)
	}
}

// arm schedules the replacement of lease, which is the current one; a closed source
// has none. The caller holds the lock.
func (s *Source) arm(lease *Lease, at time.Time) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(time.Until(at), func() { s.refresh(lease) })
}

// refresh replaces lease in the background, unless somebody else has done so or
// is about to. It waits for the end of the back-off from a purchase that failed.
func (s *Source) refresh(lease *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.flight != nil || s.current.Load() != lease {
		return
	}
	if s.backoff.check(time.Now()) != nil {
		s.retryWhileOldLives()
		return
	}
	s.takeOff()
}

// buy runs the exchange and turns a panic in it into an error: a panic in a
// goroutine would end the process, and with it every mount it serves.
func (s *Source) buy(ctx context.Context) (lease *Lease, err error) {
	defer func() {
		if p := recover(); p != nil {
			lease, err = nil, fmt.Errorf("exchange panicked (%T)", p)
		}
	}()
	token, err := s.exchange(ctx)
	if err != nil {
		return nil, err
	}
	return NewLease(token, s.refreshBefore), nil
}

// seconds rounds up, so that whoever waits that long is never early.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
