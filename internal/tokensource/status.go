// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"sync"
	"time"
)

// Status is what a source knows of itself at one instant. It covers the source's
// own life: a config that is written anew gets a new source, which knows of the
// past no more than the token it was given and what its Backoff remembers.
type Status struct {
	// Token is the shared token, or nil if there is none that still lives.
	Token *IssuedToken
	// LastSuccess is when an exchange last succeeded; zero if none did.
	LastSuccess time.Time
	// LastError is the last exchange's failure. A later success leaves it in place.
	// LastErrorAt is its time; zero if there was none.
	LastError   error
	LastErrorAt time.Time
	// Failures is how many exchanges of the Backoff's key failed since the last
	// success, of this source and of others. Those that were under way together count
	// as one.
	Failures int
	// RetryAt is until when no call is made, because the last of these is remembered or
	// the service's rate limit is in force; zero after a success without one.
	RetryAt time.Time
}

// Outcomes are what became of the exchanges so far, of one source or of several that
// tell of them together. Their methods may be called from many goroutines. The zero
// value knows of none and is ready to use.
type Outcomes struct {
	mu          sync.Mutex
	lastSuccess time.Time
	// lastFailure is nil until there is one.
	lastFailure *failure
}

type failure struct {
	err error
	at  time.Time
}

func (o *Outcomes) record(err error) {
	if err == nil {
		o.succeededAt(time.Now())
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lastFailure = &failure{err: err, at: time.Now()}
}

func (o *Outcomes) succeededAt(at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lastSuccess = later(o.lastSuccess, at)
}

// Status never waits for the service, and readers of a fresh token do not wait for
// it.
func (s *Source) Status() Status {
	failures, retryAt := s.backoff.state()
	s.outcomes.mu.Lock()
	defer s.outcomes.mu.Unlock()
	status := Status{Token: s.Current(), LastSuccess: s.outcomes.lastSuccess, Failures: failures, RetryAt: retryAt}
	if last := s.outcomes.lastFailure; last != nil {
		status.LastError, status.LastErrorAt = last.err, last.at
	}
	return status
}
