// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"errors"
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

// backoff remembers failures in a row. Its owner's lock guards it.
type backoff struct {
	failures int
	last     error
	until    time.Time
}

// check returns a *BackoffError while the last failure is remembered.
func (b *backoff) check(now time.Time) error {
	if b.last == nil || !now.Before(b.until) {
		return nil
	}
	return &BackoffError{Last: b.last, RetryAt: b.until}
}

// record takes note of an exchange's outcome. Failures of exchanges that were
// under way together count as one: none starts while a failure is remembered.
func (b *backoff) record(err error) {
	if err == nil {
		*b = backoff{}
		return
	}
	now := time.Now()
	if !now.Before(b.until) {
		b.failures++
	}
	b.last = err
	b.until = later(b.until, now.Add(b.length(err)))
}

func (b *backoff) length(err error) time.Duration {
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
