// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"time"
)

const (
	// MaxExchanges is how many exchanges run at a time for one config.
	MaxExchanges = 8

	// slotTimeout bounds the wait for a slot. Together with an answer's way back it
	// is well below Vault's own 90 s request limit and its client's 60 s, so that
	// a caller who waits in vain gets to know why.
	slotTimeout = 30 * time.Second
)

// Slots bound how many exchanges run at a time for one config, through all the
// sources that it has: the one in use, those that it replaced and that still have
// an exchange in flight, and those of writes that try a key. Use NewSlots.
type Slots struct {
	// shared is kept free for exchanges that readers of a shared token wait for, so that
	// they do not queue behind callers who want a token each.
	shared    chan struct{}
	dedicated chan struct{}
}

// NewSlots returns MaxExchanges free slots.
func NewSlots() *Slots {
	return &Slots{shared: make(chan struct{}, 1), dedicated: make(chan struct{}, MaxExchanges-1)}
}

// acquireDedicated waits for the slot of an exchange whose token one caller gets. It
// fails with ctx's error, with ErrClosed once source has ended, or with a *BusyError.
// The caller gives the slot back with free.
func (s *Slots) acquireDedicated(ctx, source context.Context) (free func(), err error) {
	return acquire(ctx, source, s.dedicated, nil)
}

// acquireShared is the same for an exchange whose token all readers share. A source
// has one of these at a time. If the slot is taken, it is by another entity's source or
// by one that was replaced meanwhile, and any other slot will do.
func (s *Slots) acquireShared(source context.Context) (free func(), err error) {
	return acquire(source, source, s.shared, s.dedicated)
}

// acquire prefers own to spare, which may be nil. Waiters are served in their order,
// as Go's channels do.
func acquire(ctx, source context.Context, own, spare chan struct{}) (free func(), err error) {
	if source.Err() != nil {
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	select {
	case own <- struct{}{}:
		return func() { <-own }, nil
	default:
	}
	timer := time.NewTimer(slotTimeout)
	defer timer.Stop()
	select {
	case own <- struct{}{}:
		return func() { <-own }, nil
	case spare <- struct{}{}:
		return func() { <-spare }, nil
	case <-source.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, &BusyError{Waited: slotTimeout}
	}
}
