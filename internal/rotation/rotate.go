// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// rotateTime bounds how long a rotation that was asked for is stayed with. What is left
// then is finished when it is due.
const rotateTime = 15 * time.Minute

// Rotation is a rotation that took place.
type Rotation struct {
	// KeyID is the new key's, ReplacedID that of the key that it replaced.
	KeyID, ReplacedID string
}

// GoesOnError says that a rotation has not ended in the time that its asker had. It
// goes on.
type GoesOnError struct {
	Ref Ref
	// What is "the rotation", or what else has not ended.
	What string
	// Waiting is what it waits for, or nil.
	Waiting error
}

func (e *GoesOnError) Error() string {
	text := fmt.Sprintf("%s of %s takes long and goes on; read its status to see how it ends", cmp.Or(e.What, "the rotation"), e.Ref)
	if e.Waiting != nil {
		text += " (" + e.Waiting.Error() + ")"
	}
	return text
}

// flight is a rotation that somebody asked for.
type flight struct {
	done chan struct{}
	// grace is the shortest that was asked for, nil for the config's own.
	grace   *time.Duration
	result  Rotation
	err     error
	waiting error
}

// Rotate replaces a key now, whether or not that is due. The replaced key lives on for
// grace, or for the config's own grace period if that is nil. If a rotation that was asked
// for is under way, its outcome is this one's, and a grace counts for both that is 0, or
// shorter than the one it was asked for with. When ctx ends first, the rotation goes on,
// and the error is a *GoesOnError.
func (e *Engine) Rotate(ctx context.Context, ref Ref, grace *time.Duration) (Rotation, error) {
	f, err := e.fly(ref, grace)
	if err != nil {
		return Rotation{}, err
	}
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
		e.mu.Lock()
		defer e.mu.Unlock()
		return Rotation{}, &GoesOnError{Ref: ref, Waiting: f.waiting}
	}
}

// fly joins the rotation that is under way, or starts one.
func (e *Engine) fly(ref Ref, grace *time.Duration) (*flight, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	if f, ok := e.flights[ref]; ok {
		f.shorten(grace)
		return f, nil
	}
	f := &flight{done: make(chan struct{}), grace: grace}
	e.flights[ref] = f
	e.wg.Go(func() {
		defer e.land(ref, f)
		ctx, cancel := context.WithTimeout(e.ctx, rotateTime)
		defer cancel()
		f.result, f.err = e.stayWith(ctx, ref, f)
	})
	return f, nil
}

// shorten has the replaced key live no longer than a caller who joins has asked for: the key
// may have leaked. What a config's own grace period is, and whether that is shorter, is
// not known here. The engine's lock is held.
func (f *flight) shorten(grace *time.Duration) {
	if grace != nil && (*grace == 0 || f.grace != nil && *grace < *f.grace) {
		f.grace = grace
	}
}

// land ends a rotation that was asked for.
func (e *Engine) land(ref Ref, f *flight) {
	defer func() {
		if p := recover(); p != nil {
			e.panicked(ref, p)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.flights, ref)
		close(f.done)
	}()
	e.wake(ref)
}

// stayWith advances a record until its key is replaced or that has failed.
func (e *Engine) stayWith(ctx context.Context, ref Ref, f *flight) (Rotation, error) {
	var of Secret
	for {
		e.mu.Lock()
		grace := f.grace
		e.mu.Unlock()
		out := e.advance(ctx, ref, want{rotate: true, grace: grace, of: &of})
		if out.rotated != nil {
			return Rotation{KeyID: out.rotated.ID, ReplacedID: out.replaced.ID}, nil
		}
		if out.err != nil && out.waiting == nil {
			return Rotation{}, out.err
		}
		e.mu.Lock()
		f.waiting = out.waiting
		e.mu.Unlock()
		if !out.awaitNext(ctx) {
			return Rotation{}, &GoesOnError{Ref: ref, Waiting: out.waiting}
		}
	}
}

// awaitNext waits until there is something to do again, and says whether ctx has lasted.
func (o *outcome) awaitNext(ctx context.Context) bool {
	timer := time.NewTimer(max(time.Until(o.next), claimedWait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Status is what this process knows of a record beyond what is stored.
type Status struct {
	// Failures in a row of its rotation, the last one and when it was.
	Failures int
	Last     error
	LastAt   time.Time
	Cleanups []CleanupStatus
}

// CleanupStatus is a retired key that could not be deleted.
type CleanupStatus struct {
	KeyID string
	// Since is when this process first had to do with it, Next when it tries again.
	Since, Next time.Time
	Failures    int
	Reason      error
}

// Status returns what went wrong with a record, if anything has.
func (e *Engine) Status(ref Ref) Status {
	e.mu.Lock()
	m, ok := e.memories[ref]
	e.mu.Unlock()
	if !ok {
		return Status{}
	}
	return m.status()
}

// ClearFailures clears a record's failures, and with them the time that was to pass
// before the next attempt: for when somebody has written its config.
func (e *Engine) ClearFailures(ref Ref) {
	e.mu.Lock()
	m, ok := e.memories[ref]
	e.mu.Unlock()
	if ok {
		m.clearFailures()
	}
}

// Forget has all forgotten that is remembered of a record: for when it is gone.
func (e *Engine) Forget(ref Ref) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.memories, ref)
}
