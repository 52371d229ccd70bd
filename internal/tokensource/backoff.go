// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"errors"
	"sync"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// A backoff doubles with each further failure. A refusal does not pass by itself, so that
// its backoff starts longer and grows further.
const (
	firstUnavailableBackoff = time.Second
	maxUnavailableBackoff   = 10 * time.Second
	firstRefusedBackoff     = 5 * time.Second
	maxRefusedBackoff       = time.Minute
)

// Backoff remembers the failures in a row of exchanges. It belongs to a key and to
// where that is sent, so that all sources of the same key and destination share
// one, at the same time and one after the other. Its methods may be called from
// many goroutines. The zero value remembers nothing and is ready to use.
type Backoff struct {
	mu       sync.Mutex
	failures int
	last     error
	until    time.Time
	// limit is the rate limit of all keys that are sent to the same service, or nil.
	limit *RateLimit
}

// Under has the service's rate limit count for this key too; nil is none.
func (b *Backoff) Under(limit *RateLimit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = limit
}

// Until is when the service may be asked again, which may be past: after the last
// failure, or when its rate limit ends. It is zero if there was no failure since the last
// success and no limit is in force.
func (b *Backoff) Until() time.Time {
	_, until := b.state()
	return until
}

func (b *Backoff) state() (failures int, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures, later(b.until, b.limit.Until())
}

// Check returns a *BackoffError while the last failure is remembered, or the service's
// rate limit is in force.
func (b *Backoff) Check() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil || !time.Now().Before(b.until) {
		return b.limit.Check()
	}
	return &BackoffError{Last: b.last, RetryAt: later(b.until, b.limit.Until())}
}

// Record takes note of an exchange's outcome. Failures of exchanges that were
// under way together count as one: none starts while a failure is remembered.
func (b *Backoff) Record(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.failures, b.last, b.until = 0, nil, time.Time{}
		return
	}
	now := time.Now()
	if !now.Before(b.until) {
		b.failures++
	}
	b.last = err
	b.limit.Record(err)
	b.until = later(b.until, now.Add(b.length(err)))
}

func (b *Backoff) length(err error) time.Duration {
	first, longest := firstUnavailableBackoff, maxUnavailableBackoff
	var failed *upstream.Error
	known := errors.As(err, &failed)
	if known && failed.Outcome == upstream.Refused {
		first, longest = firstRefusedBackoff, maxRefusedBackoff
	}
	length := min(first<<min(b.failures-1, 16), longest)
	if known {
		length = max(length, failed.RetryAfter)
	}
	return length
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
