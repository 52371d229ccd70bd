// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// A failure is tried again after a time that doubles from firstBackoff to maxBackoff;
	// a cleanup that is refused, from then on, after refusedBackoff.
	firstBackoff   = 15 * time.Second
	maxBackoff     = time.Hour
	refusedBackoff = 24 * time.Hour
	// A candidate that is refused is tried again at the age of 5, 15, 35, 75 ... s.
	firstTrialWait = 5 * time.Second
	maxTrialWait   = 160 * time.Second
)

// memory is what this process has seen of one record. All of it can be lost: it says
// when to try again, and how long something has been watched, by this process's own
// monotonic clock.
type memory struct {
	mu sync.Mutex
	// failures in a row, the last one, when it was, and until when nothing is tried.
	failures int
	last     error
	lastAt   time.Time
	until    time.Time
	// watched says since when a key that is looked for or unknown has been seen, by its
	// label, and since when one that was made or refused has been, by its id.
	watched map[string]time.Time
	// trials counts the refusals of the candidate.
	trials int
	// refusedKey is the id of the key that was refused last, of those that work once.
	refusedKey string
	// cleanups are the retired keys that wait, by their labels; gone are those that this
	// process has lately found or made gone.
	cleanups map[string]*cleanup
	gone     map[string]time.Time
}

// cleanup is a retired key that is not deleted yet.
type cleanup struct {
	keyID    string
	failures int
	since    time.Time
	next     time.Time
	// disable says that this process has decided to disable it and has not done it yet.
	disable bool
	err     error
}

func (e *Engine) memory(ref Ref) *memory {
	e.mu.Lock()
	defer e.mu.Unlock()
	m, ok := e.memories[ref]
	if !ok {
		m = &memory{watched: make(map[string]time.Time), cleanups: make(map[string]*cleanup), gone: make(map[string]time.Time)}
		e.memories[ref] = m
	}
	return m
}

// failed takes note of a failure and returns when to try again.
func (m *memory) failed(err error) time.Time { return m.failedFor(err, maxBackoff) }

// failedFor is failed for when that is to be after longest at most, unless the issuer asks for
// more.
func (m *memory) failedFor(err error, longest time.Duration) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures++
	m.last, m.lastAt = err, time.Now()
	m.until = m.lastAt.Add(max(doubled(firstBackoff, m.failures, longest), retryAfter(err)))
	return m.until
}

func (m *memory) succeeded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures, m.last, m.until = 0, nil, time.Time{}
}

// backedOff returns until when a rotation that nobody asks for is backed off from, zero for
// not at all.
func (m *memory) backedOff() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Now().Before(m.until) {
		return m.until
	}
	return time.Time{}
}

// lately returns the last failure while it is backed off from, as a *rememberedError, or nil.
func (m *memory) lately() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil || !time.Now().Before(m.until) {
		return nil
	}
	return &rememberedError{m.last}
}

// rememberedError is a failure that is backed off from, as those get it who come meanwhile.
// It is no other failure, or readers would have the backoff never end.
type rememberedError struct{ error }

func (e *rememberedError) Unwrap() error { return e.error }

func isRemembered(err error) bool {
	var remembered *rememberedError
	return errors.As(err, &remembered)
}

// watch returns since when something has been seen, which is now if it is new.
func (m *memory) watch(what string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	since, ok := m.watched[what]
	if !ok {
		since = time.Now()
		m.watched[what] = since
	}
	return since
}

// watchedFor returns for how long something has been watched, which is for ever if it was not.
func (m *memory) watchedFor(what string) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	since, ok := m.watched[what]
	if !ok {
		return math.MaxInt64
	}
	return time.Since(since)
}

func (m *memory) unwatch(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watched, what)
}

// refusedTrial takes note of a candidate's refusal and returns when to try again.
func (m *memory) refusedTrial() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trials++
	m.until = time.Now().Add(doubled(firstTrialWait, m.trials, maxTrialWait))
	return m.until
}

// endTrials clears what is remembered of a new key's refusals, once it is accepted or dropped.
func (m *memory) endTrials(id string) {
	m.unwatch(id)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trials = 0
	if m.refusedKey == id {
		m.refusedKey = ""
	}
}

// refused takes note of the refusal of a key that works once, which did not use it up.
func (m *memory) refused(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refusedKey = id
}

func (m *memory) wasRefused(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return id != "" && m.refusedKey == id
}

// cleanup returns what is remembered of a retired key.
func (m *memory) cleanup(k Retired) *cleanup {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cleanups[k.label()]
	if !ok {
		c = &cleanup{keyID: k.ID, since: time.Now()}
		m.cleanups[k.label()] = c
	}
	return c
}

// cleanupDue returns when something is to be done about a retired key. Retry may have it
// done sooner.
func (m *memory) cleanupDue(c *cleanup) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return c.next
}

// cleanupFailed takes note of why a retired key is not deleted yet, and returns when
// to try again.
func (m *memory) cleanupFailed(c *cleanup, err error) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.failures++
	c.err = err
	wait := max(doubled(firstBackoff, c.failures, maxBackoff), retryAfter(err))
	if isRefused(err) && wait == maxBackoff {
		wait = refusedBackoff
	}
	c.next = time.Now().Add(wait)
	return c.next
}

// cleanupWaits says that a retired key has nothing to be done to until then.
func (m *memory) cleanupWaits(c *cleanup, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.next, c.err, c.failures = until, nil, 0
}

// cleanedUp forgets a key that is gone, but for its id: lists may have it for a while.
func (m *memory) cleanedUp(k Retired) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cleanups, k.label())
	delete(m.watched, k.label())
	delete(m.watched, k.ID)
	m.gone[k.label()] = time.Now()
	maps.DeleteFunc(m.gone, func(_ string, at time.Time) bool { return time.Since(at) > 2*agreeTime })
}

func (m *memory) isGone(label string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.gone[label]
	return ok
}

func (m *memory) clearFailures() {
	m.succeeded()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.cleanups {
		c.failures, c.next = 0, time.Time{}
	}
}

func (m *memory) status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Failures: m.failures, Last: m.last, LastAt: m.lastAt}
	for _, c := range m.cleanups {
		if c.err != nil {
			s.Cleanups = append(s.Cleanups, CleanupStatus{KeyID: c.keyID, Since: c.since, Next: c.next, Failures: c.failures, Reason: c.err})
		}
	}
	slices.SortFunc(s.Cleanups, func(a, b CleanupStatus) int { return strings.Compare(a.KeyID, b.KeyID) })
	return s
}

// doubled is first for the first failure and twice as long for each further one, up to
// longest.
func doubled(first time.Duration, failures int, longest time.Duration) time.Duration {
	return min(first<<min(max(failures-1, 0), 16), longest)
}
