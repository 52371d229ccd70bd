// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// An exchange, once it has begun, belongs to no caller: each waits for its outcome
// as long as it likes, and the outcome counts when it arrives, though everybody may
// have left and the source may be closed. Otherwise callers who leave before the answer
// could have a refused key sent again and again.

// exchange is one exchange in flight.
type exchange struct {
	done  chan struct{}
	token *IssuedToken
	err   error
}

func newExchange() *exchange { return &exchange{done: make(chan struct{})} }

// errSlow ends a wait that had something to fall back on.
var errSlow = errors.New("exchange takes long")

func endedExchange(err error) *exchange {
	x := newExchange()
	x.err = err
	close(x.done)
	return x
}

// wait returns the exchange's error once it has ended, or sooner if the caller gives
// up, the source closes, or, with a fallback, staleTimeout is over.
func (x *exchange) wait(caller context.Context, closing <-chan struct{}, fallback bool) error {
	select {
	case <-x.done:
		return x.err
	default:
	}
	var slow <-chan time.Time
	if fallback {
		timer := time.NewTimer(staleTimeout)
		defer timer.Stop()
		slow = timer.C
	}
	select {
	case <-x.done:
		return x.err
	case <-slow:
		return errSlow
	case <-caller.Done():
		return caller.Err()
	case <-closing:
		return ErrClosed
	}
}

// startShared starts the exchange whose token all readers share. The caller holds
// the lock.
func (s *Source) startShared() {
	x := newExchange()
	s.sharedExchange = x
	s.inFlight++
	deadline := time.Now().Add(exchangeTimeout)
	go func() {
		defer s.finishShared(x)
		closing, done := s.untilClosed()
		defer done()
		free, err := s.slots.acquireShared(s.configName, closing)
		if err != nil {
			x.err = err
			return
		}
		defer free()
		if x.err = s.backoff.Check(); x.err == nil {
			s.run(s.lifetime, deadline, s.exchanger.Exchange, x)
		}
	}()
}

// finishShared publishes a shared exchange's outcome and lets its readers go.
func (s *Source) finishShared(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(x.done)
	defer s.ended()
	s.sharedExchange = nil
	switch {
	case s.isOver():
		x.token, x.err = nil, ErrClosed
	case x.err == nil:
		s.setCurrent(x.token)
	case !errors.Is(x.err, ErrElsewhere):
		s.retryWhileOldLives()
	}
}

// exchangeFor makes an exchange for one caller, who waits for its turn and for its
// outcome until ctx ends.
func (s *Source) exchangeFor(ctx context.Context, exchange ExchangeFunc) (*IssuedToken, error) {
	deadline := time.Now().Add(exchangeTimeout)
	if err := s.backoff.Check(); err != nil {
		return nil, err // There is no use in waiting for a slot.
	}
	closing, done := s.untilClosed()
	defer done()
	free, err := s.slots.acquireDedicated(ctx, s.configName, closing)
	if err != nil {
		return nil, err
	}
	x, err := s.startDedicated(ctx, deadline, exchange, free)
	if err != nil {
		free()
		return nil, err
	}
	err = x.wait(ctx, closing, false)
	switch {
	case s.isOver():
		return nil, ErrClosed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return x.token, err
}

// startDedicated starts an exchange that free gives the slot back for. What failed
// while its caller waited for the slot ends it before it begins.
func (s *Source) startDedicated(ctx context.Context, deadline time.Time, exchange ExchangeFunc, free func()) (*exchange, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOver() {
		return nil, ErrClosed
	}
	if err := s.backoff.Check(); err != nil {
		return nil, err
	}
	x := newExchange()
	s.inFlight++
	go func() {
		defer s.finishDedicated(x)
		defer free()
		s.run(context.WithoutCancel(ctx), deadline, exchange, x)
	}()
	return x, nil
}

func (s *Source) finishDedicated(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(x.done)
	s.ended()
}

// run makes an exchange and takes note of its outcome, before its slot is free for
// another one. It ends with the deadline and with the source's lifetime; what the
// latter cuts off says nothing about the service.
func (s *Source) run(ctx context.Context, deadline time.Time, exchange ExchangeFunc, x *exchange) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	defer context.AfterFunc(s.lifetime, cancel)()
	x.token, x.err = s.issue(ctx, exchange)
	if s.lifetime.Err() != nil || errors.Is(x.err, ErrElsewhere) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backoff.Record(x.err)
	s.outcomes.record(x.err)
}

// issue calls the service and turns a panic in that into an error: a panic in a
// goroutine would end the process, and with it every mount it serves.
func (s *Source) issue(ctx context.Context, exchange ExchangeFunc) (issued *IssuedToken, err error) {
	defer func() {
		if p := recover(); p != nil {
			issued, err = nil, fmt.Errorf("exchange panicked (%T)", p)
		}
	}()
	token, err := exchange(ctx)
	if err != nil {
		return nil, err
	}
	return NewIssuedToken(token, s.refreshBefore), nil
}

// ended takes note that an exchange is in flight no more. The caller holds the lock.
func (s *Source) ended() {
	s.inFlight--
	s.releaseIfDone()
}

// releaseIfDone tells the source's owner, once, that the source is closed and none
// of its exchanges is in flight. The caller holds the lock.
func (s *Source) releaseIfDone() {
	if !s.isOver() || s.inFlight > 0 || s.release == nil {
		return
	}
	s.release()
	s.release = nil
}
