// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"errors"
	"sync"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// A failure is remembered for a time that doubles with each further one. A
// refusal will not pass by itself, so its memory starts longer and grows further.
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
}

// Until is when the service may be asked again after the last failure, which may
// be past. It is zero if there was none since the last success.
func (b *Backoff) Until() time.Time {
	_, until := b.state()
	return until
}

func (b *Backoff) state() (failures int, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures, b.until
}

// Check returns a *BackoffError while the last failure is remembered.
func (b *Backoff) Check() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil || !time.Now().Before(b.until) {
		return nil
	}
	return &BackoffError{Last: b.last, RetryAt: b.until}
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
