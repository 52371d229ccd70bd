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
// What callers can make it do is bounded: an exchange that failed is remembered by
// a Backoff, which belongs to the key and outlives its sources, and Slots bound how
// many exchanges are in flight.
//
// The package makes no call of its own: what it knows of a service is a function
// that exchanges the key for a token.
package tokensource

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

const (
	// exchangeTimeout bounds an exchange, its retries and the wait for its slot
	// included. It ends before Vault's own 90 s request limit. Only callers whose client
	// waits longer than its default of 60 s see why it failed.
	exchangeTimeout = 80 * time.Second

	// staleTimeout is how long a reader waits for a newer token while it could be
	// handed the old one.
	staleTimeout = 3 * time.Second

	// expiryMargin is how long before its end an old token is no longer handed
	// out; tokens that live less than ten times as long give up a tenth.
	expiryMargin = 10 * time.Second
)

// ExchangeFunc exchanges the key for one token. It must end when its context does.
type ExchangeFunc func(context.Context) (*tokenservice.Token, error)

// Exchanger exchanges the key of a source. It is no pair of functions, because each would be one more
// object for each of a hundred thousand sources. The methods must end when their context does.
type Exchanger interface {
	// Exchange gets a token that readers share.
	Exchange(context.Context) (*tokenservice.Token, error)
	// Dedicated gets one that they do not.
	Dedicated(context.Context) (*tokenservice.Token, error)
}

// Exchange makes an ExchangeFunc an Exchanger, which gets all tokens in the same way.
func (f ExchangeFunc) Exchange(ctx context.Context) (*tokenservice.Token, error) { return f(ctx) }

// Dedicated is Exchange.
func (f ExchangeFunc) Dedicated(ctx context.Context) (*tokenservice.Token, error) { return f(ctx) }

// Options configure a Source.
type Options struct {
	Exchanger Exchanger
	// RefreshBefore is how long before its expiry a token is replaced; 0 is a
	// quarter of the token's life. Less than a second counts as a second, more
	// than half of the token's life as half.
	RefreshBefore time.Duration
	// Current is a token that was issued before and is to be shared; it may be nil.
	Current *IssuedToken
	// Backoff remembers the failures of the key that Exchanger sends, and Slots bound
	// the exchanges of the config called ConfigName. Without them the source has some of its own.
	Backoff    *Backoff
	Slots      *Slots
	ConfigName string
	// Refresher has the token replaced in the background. Without it the source has one of its own.
	Refresher *Refresher
	// Outcomes are where the source notes what becomes of its exchanges. Without them it
	// has some of its own.
	Outcomes *Outcomes
	// Lifetime ends the exchanges in flight, which Close lets finish, and with them what waits
	// for them: the source is then as good as closed. Without it they end by themselves.
	Lifetime context.Context
	// Release, if set, is called once, when the source is closed and none of its
	// exchanges is in flight any more. It must not call the source.
	Release func()
}

// withDefaults fills in what o leaves out. The sources that are made of the result have what it
// made in common.
func (o Options) withDefaults() Options {
	if o.Backoff == nil {
		o.Backoff = &Backoff{}
	}
	if o.Slots == nil {
		o.Slots = &Slots{}
	}
	if o.Refresher == nil {
		o.Refresher = &Refresher{}
	}
	if o.Outcomes == nil {
		o.Outcomes = &Outcomes{}
	}
	if o.Lifetime == nil {
		o.Lifetime = context.Background()
	}
	return o
}

// IssuedToken is a token together with the times that govern its sharing.
type IssuedToken struct {
	tokenservice.Token
	// IssuedAt is when the exchange that issued the token ended.
	IssuedAt time.Time
	// DueAt is when readers are to get a newer one.
	DueAt time.Time

	// lead is how long before DueAt it is to be replaced in the background.
	lead time.Duration
	// tokenLife is how long the token lives, counted from when the service first issued
	// it: a service may return the same token again. See follow.
	tokenLife time.Duration
	wasRead   atomic.Bool
	// dropped says that the token is to be dropped as soon as Drop's limit allows.
	dropped atomic.Bool
}

// Response is what a reader gets.
type Response struct {
	*IssuedToken
	// Stale says that the token is past due because no newer one could be issued.
	// Why is then the last failure, or nil while an exchange is still under way.
	Stale bool
	Why   error
	// RetryAt is when a reader of a stale token should ask again. The token
	// outlives it.
	RetryAt time.Time
}

// minStaleTTL is the shortest TTL of a stale token, in seconds. The Vault Secrets Operator takes 2
// or less, with the last_vault_rotation that it knows, for a rotation under way, asks again and
// again, and fails (awaitVaultSecretRotation in its controllers).
const minStaleTTL = 3

// TTL is the whole seconds, rounded up, after which the reader should ask again. It is never
// above RotationPeriod, and the token outlives it.
func (a Response) TTL(now time.Time) int64 {
	if !a.Stale {
		return a.IssuedToken.TTL(now)
	}
	shortest := min(minStaleTTL, int64(a.ExpiresAt.Sub(now)/time.Second))
	return min(max(seconds(a.RetryAt.Sub(now)), shortest, 1), a.RotationPeriod())
}

// Source is the current token of one config. Its methods may be called from many
// goroutines. Close it to end what it does in the background.
type Source struct {
	exchanger     Exchanger
	refreshBefore time.Duration
	backoff       *Backoff
	slots         *Slots
	configName    string
	outcomes      *Outcomes
	ownOutcomes   Outcomes // those of a source that shares none
	release       func()
	// lifetime is that of the exchanges in flight.
	lifetime context.Context
	closed   atomic.Bool

	// current is read without the lock by readers of a fresh token.
	current atomic.Pointer[IssuedToken]

	mu sync.Mutex
	// sharedExchange is the one whose token readers share, nil if none is in flight, and
	// inFlight counts the dedicated ones too.
	sharedExchange *exchange
	inFlight       int
	// closing is closed with the source. Like a context that ends with it, it would be a large
	// part of each of a hundred thousand sources, and is there while somebody waits for that.
	// waiting counts those.
	closing chan struct{}
	waiting int
	// refresher calls refresh when it is time. Its lock guards refreshPlace.
	refresher    *Refresher
	refreshPlace queuePlace
	// mayDropAt is when a token may be dropped again, and dropTimer waits for that.
	mayDropAt time.Time
	dropTimer *time.Timer
}

// New returns a source. It makes no exchange before somebody reads.
func New(o Options) *Source {
	s := &Source{}
	o.Outcomes = cmp.Or(o.Outcomes, &s.ownOutcomes)
	o = o.withDefaults()
	s.exchanger, s.refreshBefore, s.backoff = o.Exchanger, o.RefreshBefore, o.Backoff
	s.slots, s.configName, s.outcomes, s.lifetime, s.release = o.Slots, o.ConfigName, o.Outcomes, o.Lifetime, o.Release
	s.refresher = o.Refresher
	if o.Current != nil && !o.Current.dropped.Load() {
		token := o.Current.unread(o.RefreshBefore)
		s.current.Store(token)
		s.outcomes.succeededAt(token.IssuedAt)
		if o.Current.wasRead.Load() {
			s.markRead(token)
		}
	}
	return s
}

// Close ends the background work and fails the callers that wait with ErrClosed.
// Exchanges in flight go on: nobody gets their tokens, but the Backoff gets to know
// how they ended.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Swap(true) {
		return
	}
	if s.closing != nil {
		close(s.closing)
	}
	s.current.Store(nil)
	s.refresher.unset(s)
	if s.dropTimer != nil {
		s.dropTimer.Stop()
	}
	s.releaseIfDone()
}

// isOver says whether the source is closed or its lifetime has ended.
func (s *Source) isOver() bool { return s.closed.Load() || s.lifetime.Err() != nil }

// untilClosed returns what is closed with the source, or is already. Who waits for that calls done
// afterwards.
func (s *Source) untilClosed() (closing <-chan struct{}, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing == nil {
		s.closing = make(chan struct{})
		if s.closed.Load() {
			close(s.closing)
		}
	}
	s.waiting++
	return s.closing, s.waited
}

func (s *Source) waited() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	if s.waiting == 0 {
		s.closing = nil
	}
}

// Current returns the shared token, or nil if there is none that still lives.
func (s *Source) Current() *IssuedToken {
	token := s.current.Load()
	if token == nil || !time.Now().Before(token.ExpiresAt) {
		return nil
	}
	return token
}

// Drop stops sharing the token if it is the one called id, so that the next reader gets
// another. Anyone who may read tokens may have them dropped, and would cause an exchange
// each time: within a tenth of a token's life after a drop, the next one waits for that
// time to end, and the token stays shared until then.
func (s *Source) Drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := s.current.Load()
	if token == nil || token.ID != id {
		return
	}
	if wait := time.Until(s.mayDropAt); wait > 0 {
		token.dropped.Store(true)
		s.dropLater(id, wait)
		return
	}
	s.mayDropAt = time.Now().Add(token.tokenLife / 10)
	s.current.Store(nil)
}

// DropNoSoonerThan has the source drop no token sooner than its predecessor could have, so
// that sources which replace each other share one limit on drops.
func (s *Source) DropNoSoonerThan(predecessor *Source) {
	predecessor.mu.Lock()
	at := predecessor.mayDropAt
	predecessor.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mayDropAt = later(s.mayDropAt, at)
}

// dropLater drops the token called id after wait. It replaces an earlier call's, whose
// token is not shared any more, or is the same one. The caller holds the lock.
func (s *Source) dropLater(id string, wait time.Duration) {
	if s.dropTimer != nil {
		s.dropTimer.Stop()
	}
	s.dropTimer = time.AfterFunc(wait, func() { s.Drop(id) })
}

// Read returns the shared token, which lives for at least minTTL longer. It waits
// for the service only if there is no fresh one. Errors are those of the exchange,
// *BackoffError, *BusyError, *TooShortError, ErrClosed or ctx's.
func (s *Source) Read(ctx context.Context, minTTL time.Duration) (Response, error) {
	if token := s.ReadFresh(minTTL); token != nil {
		return Response{IssuedToken: token}, nil
	}
	return s.readSlowly(ctx, minTTL)
}

// ReadFresh is Read if that need not wait, and else returns nil.
func (s *Source) ReadFresh(minTTL time.Duration) *IssuedToken {
	token := s.fresh(minTTL)
	if token != nil {
		s.markRead(token)
	}
	return token
}

// IsFresh says whether Read would return without waiting.
func (s *Source) IsFresh(minTTL time.Duration) bool { return s.fresh(minTTL) != nil }

// fresh returns the token that Read returns without waiting, or nil.
func (s *Source) fresh(minTTL time.Duration) *IssuedToken {
	token := s.current.Load()
	if token == nil || !token.fresh(time.Now(), minTTL) {
		return nil
	}
	return token
}

func (s *Source) readSlowly(ctx context.Context, minTTL time.Duration) (Response, error) {
	old, x, err := s.join(minTTL)
	if err != nil {
		return Response{}, err
	}
	if x == nil {
		s.markRead(old)
		return Response{IssuedToken: old}, nil
	}
	closing, done := s.untilClosed()
	defer done()
	fallback := old != nil && old.usable(time.Now(), minTTL)
	err = x.wait(ctx, closing, fallback)
	fallback = fallback && old.usable(time.Now(), minTTL)
	if errors.Is(err, errSlow) && !fallback {
		err = x.wait(ctx, closing, false) // The old token came too close to its end.
	}
	switch {
	case s.isOver():
		return Response{}, ErrClosed
	case err == nil:
		return s.deliver(x.token, minTTL)
	case fallback && ctx.Err() == nil:
		return s.stale(old, err), nil
	default:
		return Response{}, err
	}
}

// join finds out, at one instant, what a reader has to do: take the token that
// is returned without an exchange, or wait for the exchange, with the token to fall
// back on. A failure that is remembered counts as an exchange that has ended.
func (s *Source) join(minTTL time.Duration) (*IssuedToken, *exchange, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOver() {
		return nil, nil, ErrClosed
	}
	now := time.Now()
	token := s.current.Load()
	if token != nil && token.fresh(now, minTTL) {
		return token, nil, nil
	}
	if token != nil && now.Before(token.DueAt) {
		if err := token.promise(now, minTTL); err != nil {
			return nil, nil, err
		}
	}
	if s.sharedExchange == nil {
		if err := s.backoff.Check(); err != nil {
			return token, endedExchange(err), nil
		}
		s.startShared()
	}
	return token, s.sharedExchange, nil
}

func (s *Source) deliver(token *IssuedToken, minTTL time.Duration) (Response, error) {
	if err := token.promise(time.Now(), minTTL); err != nil {
		return Response{}, err
	}
	s.markRead(token)
	return Response{IssuedToken: token}, nil
}

// stale wraps an old token for a reader. While the exchange is under way or the
// backoff is over the reader is asked to come back in a second, and never later
// than the token may be handed out.
func (s *Source) stale(old *IssuedToken, why error) Response {
	a := Response{IssuedToken: old, Stale: true, Why: why, RetryAt: time.Now().Add(time.Second)}
	if errors.Is(why, errSlow) {
		a.Why = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old.wasRead.CompareAndSwap(false, true) {
		s.retryWhileOldLives()
	}
	a.RetryAt = later(a.RetryAt, s.backoff.Until())
	if last := old.serveUntil(); last.Before(a.RetryAt) {
		a.RetryAt = last
	}
	return a
}

// setCurrent makes token the current one. The caller holds the lock of a source that is
// not closed.
func (s *Source) setCurrent(token *IssuedToken) {
	token.follow(s.current.Load())
	s.current.Store(token)
}

// Replace makes an exchange and shares its token, whatever there was before, unless
// ctx ends first. It respects the backoff and adds to it.
func (s *Source) Replace(ctx context.Context) error {
	token, err := s.exchangeFor(ctx, s.exchanger.Exchange)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOver() {
		return ErrClosed
	}
	s.setCurrent(token)
	return nil
}

// Dedicated returns a token that no other caller gets and that lives for at least
// minTTL. It respects the backoff and adds to it. Errors are those of Read.
func (s *Source) Dedicated(ctx context.Context, minTTL time.Duration) (*IssuedToken, error) {
	if shared := s.current.Load(); shared != nil && time.Now().Before(shared.DueAt) {
		if err := shared.outlives(minTTL); err != nil {
			return nil, err // The token of another exchange would be no better.
		}
	}
	token, err := s.exchangeFor(ctx, s.exchanger.Dedicated)
	if err != nil {
		return nil, err
	}
	if err := token.outlives(minTTL); err != nil {
		return nil, err
	}
	return token, nil
}

// retryWhileOldLives has the token replaced at the backoff's end, or when it is due for
// that if that is later, if the token was read and will still be alive then. The caller
// holds the lock.
func (s *Source) retryWhileOldLives() {
	old := s.current.Load()
	at := later(time.Now(), s.backoff.Until())
	if old == nil || !old.wasRead.Load() || !old.usable(at, 0) {
		return
	}
	s.refresher.set(s, later(at, old.refreshAt()))
}

// markRead marks a token as read, so that it is replaced when it is due for that. A reader may
// come with a token that was replaced meanwhile, whose successor it does not touch.
func (s *Source) markRead(token *IssuedToken) {
	if token.wasRead.Load() || !token.wasRead.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() == token {
		s.refresher.set(s, token.refreshAt())
	}
}

// refresh replaces the token in the background, if it is due for that, unless somebody else is
// about to. It waits for the end of the backoff from an exchange that failed.
func (s *Source) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := s.current.Load()
	if s.isOver() || s.sharedExchange != nil || token == nil || !token.wasRead.Load() {
		return
	}
	// Another token may have taken its place just now.
	if time.Now().Before(token.refreshAt()) || s.backoff.Check() != nil {
		s.retryWhileOldLives()
		return
	}
	s.startShared()
}

// seconds rounds up, so that a caller who waits that long is never early.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
