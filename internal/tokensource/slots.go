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

// Slots bound how many exchanges run at a time for each config, through all the
// sources that it has: the one in use, those that it replaced and that still have
// an exchange in flight, and those of writes that try a key. The zero value is ready to use.
type Slots struct {
	mu sync.Mutex
	// byConfig has the configs that have or await a slot. They are few, where there may be a
	// hundred thousand.
	byConfig map[string]*turns
}

// turns are the slots of one config. A slot is taken by sending into its channel.
type turns struct {
	// shared is kept free for exchanges that readers of a shared token wait for, so that
	// they do not queue behind callers who want a token each.
	shared    chan struct{}
	dedicated chan struct{}
	users     int
}

func (s *Slots) enter(config string) *turns {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byConfig[config]
	if t == nil {
		t = &turns{shared: make(chan struct{}, 1), dedicated: make(chan struct{}, MaxExchanges-1)}
		if s.byConfig == nil {
			s.byConfig = make(map[string]*turns)
		}
		s.byConfig[config] = t
	}
	t.users++
	return t
}

func (s *Slots) leave(config string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byConfig[config]
	t.users--
	if t.users == 0 {
		delete(s.byConfig, config)
	}
}

// acquireDedicated waits for the slot of an exchange whose token one caller gets. It
// fails with ctx's error, with ErrClosed once closing is closed, or with a *BusyError.
// The caller gives the slot back with free.
func (s *Slots) acquireDedicated(ctx context.Context, config string, closing <-chan struct{}) (free func(), err error) {
	t := s.enter(config)
	return s.await(ctx, config, closing, t.dedicated, nil)
}

// acquireShared waits for the slot of an exchange whose token all readers share, and fails
// as acquireDedicated does. A source has one such exchange at a time. If another entity's
// source or a replaced one has the slot, any other slot will do.
func (s *Slots) acquireShared(config string, closing <-chan struct{}) (free func(), err error) {
	t := s.enter(config)
	return s.await(context.Background(), config, closing, t.shared, t.dedicated)
}

// await returns what gives a slot back, or leaves because there was none.
func (s *Slots) await(ctx context.Context, config string, closing <-chan struct{}, own, spare chan struct{}) (free func(), err error) {
	taken, err := awaitTurn(ctx, closing, own, spare)
	if err != nil {
		s.leave(config)
		return nil, err
	}
	return func() { <-taken; s.leave(config) }, nil
}

// awaitTurn prefers own to spare, which may be nil. Waiters are served in their order,
// as Go's channels do.
func awaitTurn(ctx context.Context, closing <-chan struct{}, own, spare chan struct{}) (taken chan struct{}, err error) {
	select {
	case <-closing:
		return nil, ErrClosed
	default:
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
	case <-closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, &BusyError{Waited: slotTimeout}
	}
}
