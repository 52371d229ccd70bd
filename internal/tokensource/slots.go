// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"sync"
	"time"
)

const (
	// MaxExchanges is how many exchanges run at a time for one config.
	MaxExchanges = 8

	// slotTimeout bounds the wait for a slot. Together with the way back of the response it
	// is well below Vault's own 90 s request limit and its client's 60 s, so that
	// a caller who waits in vain gets to know why.
	slotTimeout = 30 * time.Second
)

// Slots bound how many exchanges run at a time for one config, through all the
// sources that it has: the one in use, those that it replaced and that still have
// an exchange in flight, and those of writes that try a key. The zero value is ready to use.
type Slots struct {
	mu sync.Mutex
	// turns is nil while nobody has or awaits a slot, which is nearly always: there may be a
	// hundred thousand configs.
	turns *turns
	users int
}

// turns are the slots of one config. A slot is taken by sending into its channel.
type turns struct {
	// shared is kept free for exchanges that readers of a shared token wait for, so that
	// they do not queue behind callers who want a token each.
	shared    chan struct{}
	dedicated chan struct{}
}

func (s *Slots) enter() *turns {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns == nil {
		s.turns = &turns{shared: make(chan struct{}, 1), dedicated: make(chan struct{}, MaxExchanges-1)}
	}
	s.users++
	return s.turns
}

func (s *Slots) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.users == 0 {
		s.turns = nil
	}
}

// acquireDedicated waits for the slot of an exchange whose token one caller gets. It
// fails with ctx's error, with ErrClosed once source has ended, or with a *BusyError.
// The caller gives the slot back with free.
func (s *Slots) acquireDedicated(ctx, source context.Context) (free func(), err error) {
	t := s.enter()
	return s.hold(awaitTurn(ctx, source, t.dedicated, nil))
}

// acquireShared waits for the slot of an exchange whose token all readers share, and fails
// as acquireDedicated does. A source has one such exchange at a time. If another entity's
// source or a replaced one has the slot, any other slot will do.
func (s *Slots) acquireShared(source context.Context) (free func(), err error) {
	t := s.enter()
	return s.hold(awaitTurn(source, source, t.shared, t.dedicated))
}

// hold returns what gives a slot back, or leaves because there was none.
func (s *Slots) hold(taken chan struct{}, err error) (free func(), _ error) {
	if err != nil {
		s.leave()
		return nil, err
	}
	return func() { <-taken; s.leave() }, nil
}

// awaitTurn prefers own to spare, which may be nil. Waiters are served in their order,
// as Go's channels do.
func awaitTurn(ctx, source context.Context, own, spare chan struct{}) (taken chan struct{}, err error) {
	if source.Err() != nil {
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	select {
	case own <- struct{}{}:
		return own, nil
	default:
	}
	timer := time.NewTimer(slotTimeout)
	defer timer.Stop()
	select {
	case own <- struct{}{}:
		return own, nil
	case spare <- struct{}{}:
		return spare, nil
	case <-source.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, &BusyError{Waited: slotTimeout}
	}
}
