// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// LateWriteTime is how long after the start of a process a put of the one before may
	// still land, which was killed in the middle of it.
	LateWriteTime = 30 * time.Second
	// MaxGrace is the longest grace period that may be asked for.
	MaxGrace = 7 * 24 * time.Hour
	// clockSlack is how far an issuer's clock may be set back before it is taken to have
	// been wrong when the longest grace period began.
	clockSlack = time.Hour
	// creationTime bounds the creation of a key, from the Save of its intent on.
	creationTime = time.Minute
	// agreeTime is how long after the Save of an intent the issuer's parts may not agree
	// yet on the key: its creation takes its time, and so does its way into lists.
	agreeTime = creationTime + 90*time.Second
	// candidateTime is how long a candidate may be refused before it is given up.
	candidateTime = 10 * time.Minute
	// storeTime bounds what is stored of a key that was just created, even if the caller who asked
	// for it has gone.
	storeTime = 30 * time.Second
	// claimedWait is how long to wait for somebody else's claim.
	claimedWait = time.Second
	// MaxRetired is how many keys may wait for their deletion before no more are made. An
	// identity has 20 keys at IBM Cloud by default.
	MaxRetired = 5
)

// Engine replaces keys, deletes those that were replaced, and finishes what a process
// before it has left. All that it knows is in the records; what it remembers besides
// is when to try again.
type Engine struct {
	store   Store
	issuer  Issuer
	holders *Holders
	observe func(Event)
	wake    func(Ref)
	started time.Time

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	memories map[Ref]*memory
	flights  map[Ref]*flight
	closed   bool
}

// Options are what an Engine works with.
type Options struct {
	Store   Store
	Issuer  Issuer
	Holders *Holders
	// Observe is told what happened, one event at a time for each record. It may be nil.
	Observe func(Event)
	// Wake is told of a record that Rotate has left with something to do: it is to be
	// advanced. It may be nil.
	Wake func(Ref)
}

// NewEngine returns an engine of a process that starts now.
func NewEngine(o Options) *Engine {
	e := &Engine{
		store: o.Store, issuer: o.Issuer, holders: o.Holders, observe: o.Observe, wake: o.Wake, started: time.Now(),
		memories: make(map[Ref]*memory), flights: make(map[Ref]*flight),
	}
	if e.observe == nil {
		e.observe = func(Event) {}
	}
	if e.wake == nil {
		e.wake = func(Ref) {}
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// Close ends the rotations that were asked for, and waits for them.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
}

// Event is something that happened to a key.
type Event struct {
	Ref  Ref
	Kind EventKind
	// KeyID is the key's. It is empty where none is known.
	KeyID string
	// Err says why, for NotReusable, Discarded, Failed, CleanupFailed and Panicked.
	Err error
	// Renews says, for Failed, that the record's keys renew themselves.
	Renews bool
}

// EventKind says what happened.
type EventKind int

const (
	// Rotated is the adoption of the key.
	Rotated EventKind = iota
	// Renewed is a token that the key got, where keys work once.
	Renewed
	// NotReusable is a key that is to be reused and got no second token.
	NotReusable
	// Discarded is a candidate that got no token and will be deleted.
	Discarded
	// Recovered is a key that was found at the issuer and will be deleted: its creation
	// was not answered.
	Recovered
	// KeyDisabled and Deleted are of a retired key; Deleted is also said of one that turns
	// out to be gone.
	KeyDisabled
	Deleted
	// Expired is a retired key that could not be deleted, and is given up because it has
	// expired, as far as is known.
	Expired
	// Failed is a rotation that did not come further and is tried again.
	Failed
	// CleanupFailed is a retired key that could not be deleted and is tried again.
	CleanupFailed
	// Panicked is a defect of the plugin's. Err holds no more than the type of what was
	// panicked with.
	Panicked
)

// want is what an advance is for, beyond what is left to finish or due.
type want struct {
	rotate bool
	grace  *time.Duration
	// token is what somebody waits for, in a record whose keys work once. It may be nil.
	token *wantedToken
	// of is the key that is to be replaced. It is set by the first advance: a key that
	// somebody writes afterwards is not meant. It may be nil.
	of *Secret
}

// outcome is what came of one advance.
type outcome struct {
	// next is when there is something to do again. It is zero for never.
	next time.Time
	// rotated is the key that was adopted, and replaced the one that was in use.
	rotated, replaced *Key
	// token is the one that was waited for.
	token *Token
	// waiting is why a rotation has to wait, err why it, or something else, failed.
	waiting, err error
}

// wake makes next no later than at.
func (o *outcome) wake(at time.Time) {
	if !at.IsZero() && (o.next.IsZero() || at.Before(o.next)) {
		o.next = at
	}
}

// Advance does what can be done now for one record: it finishes what was left
// unfinished, rotates if that is due, and deletes what has had its time. It returns
// when there is something to do again, zero for never, whether or not it fails; its
// own backoff is in that. It holds the claim for no longer than its calls take.
func (e *Engine) Advance(ctx context.Context, ref Ref) (next time.Time, err error) {
	out := e.advance(ctx, ref, want{})
	return out.next, out.err
}

func (e *Engine) advance(ctx context.Context, ref Ref, wanted want) (out outcome) {
	defer func() {
		if p := recover(); p != nil {
			out = e.panicked(ref, p)
		}
	}()
	claim, err := e.store.Claim(ctx, ref, "rotated")
	if errors.Is(err, ErrNoRecord) {
		e.Forget(ref)
		return outcome{err: err}
	}
	if err != nil {
		return e.unclaimed(ref, err)
	}
	defer claim.Release()
	if current := claim.Record().Current; wanted.of != nil && *wanted.of == "" && current != nil {
		*wanted.of = current.Value
	}
	a := &advance{Engine: e, ref: ref, claim: claim, rec: claim.Record(), plan: claim.Plan(), want: wanted, mem: e.memory(ref)}
	defer a.closeSessions()
	a.run(ctx)
	return a.out
}

// unclaimed is the outcome where storage, or somebody else, did not let us begin.
func (e *Engine) unclaimed(ref Ref, err error) (out outcome) {
	var claimed *ClaimedError
	if errors.As(err, &claimed) {
		return outcome{next: time.Now().Add(claimedWait), waiting: err}
	}
	return outcome{next: e.memory(ref).failed(err), err: err}
}

// advance is one go at one record, under one claim.
type advance struct {
	*Engine
	ref      Ref
	claim    Claim
	rec      Record
	plan     Plan
	want     want
	mem      *memory
	sessions []opened
	out      outcome
}

// run takes the steps in their order. Nothing follows an error of storage, for then
// it is in doubt what is stored: the next claim reads it.
func (a *advance) run(ctx context.Context) {
	if a.ref.Tombstone != "" {
		if gone, err := a.exhume(ctx); gone || err != nil {
			a.note(err)
			return
		}
	}
	err := a.bringForward(ctx)
	a.note(err)
	if isDoubt(err) {
		return
	}
	if err := a.retire(ctx); err != nil {
		a.note(err)
		return
	}
	if a.ref.Tombstone != "" && a.rec.Empty() {
		a.note(a.claim.Remove(ctx))
	}
}

// bringForward does what the plan says of new keys.
func (a *advance) bringForward(ctx context.Context) error {
	if a.plan.Renew {
		return a.renew(ctx)
	}
	return a.replace(ctx)
}

// note takes down an error and when to try again.
func (a *advance) note(err error) {
	if err == nil {
		return
	}
	var wait *waitError
	if errors.As(err, &wait) {
		a.out.waiting = wait.because
		a.out.wake(wait.until)
		return
	}
	a.out.err = errors.Join(a.out.err, err)
	if isRemembered(err) {
		a.out.wake(a.mem.backedOff())
		return
	}
	next := a.mem.failedFor(err, a.longestBackoff())
	if !IsUsedUp(err) { // Trying again is then for a caller who wants a token.
		a.out.wake(next)
	}
	a.observe(Event{Ref: a.ref, Kind: Failed, Err: err, Renews: a.plan.Renew})
}

// longestBackoff is a tenth of what is left of a token's life, or of the time in which a
// rotation may begin, so that there are some attempts before its end.
func (a *advance) longestBackoff() time.Duration {
	end := a.plan.Until
	if a.plan.Renew && a.rec.Token.Lives() {
		end = a.rec.Token.ExpiresAt
	}
	if end.IsZero() {
		return maxBackoff
	}
	return min(max(time.Until(end)/10, firstBackoff), maxBackoff)
}

// panicked is the outcome of a panic, which in a goroutine would end the process.
func (e *Engine) panicked(ref Ref, p any) outcome {
	err := fmt.Errorf("rotating the key of %s failed in the plugin (%T)", ref, p)
	e.observe(Event{Ref: ref, Kind: Panicked, Err: err})
	return outcome{next: e.memory(ref).failed(err), err: err}
}

// lateWritesEndAt returns when no late write of a process before this one can undo what is
// stored any more, or zero if that has passed. Before that nothing is created or deleted.
func (a *advance) lateWritesEndAt() time.Time {
	at := a.started.Add(LateWriteTime)
	if a.plan.Fresh || !time.Now().Before(at) {
		return time.Time{}
	}
	return at
}

// save stores the next record.
func (a *advance) save(ctx context.Context, next Record) error {
	if err := a.claim.Save(ctx, next); err != nil {
		return &doubtError{err}
	}
	a.rec = a.claim.Record()
	return nil
}

// opened is a session that an advance has opened, or why it could not.
type opened struct {
	Session
	err   error
	value Secret
	of    Binding
}

// session opens a session with a key, once in an advance. If that fails, it is not tried
// again: an issuer that does not answer would keep the claim for as long as it takes, times the
// number of retired keys.
func (a *advance) session(ctx context.Context, at Binding, value Secret) (Session, error) {
	for _, s := range a.sessions {
		if s.value == value && s.of.isAt(at) {
			return s.Session, s.err
		}
	}
	s, err := a.issuer.Login(ctx, at, value)
	a.sessions = append(a.sessions, opened{s, err, value, at})
	return s, err
}

// clock returns the time at an issuer that was called already, or zero.
func (a *advance) clock(at Binding) time.Time {
	for _, s := range a.sessions {
		if s.err == nil && s.of.isAt(at) {
			return s.Now()
		}
	}
	return time.Time{}
}

func (a *advance) closeSessions() {
	for _, s := range a.sessions {
		if s.err == nil {
			s.Close()
		}
	}
}
