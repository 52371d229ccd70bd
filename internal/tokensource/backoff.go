// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"errors"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

// A failure is remembered for a time that doubles with each further one. A
// refusal will not pass by itself, so its memory starts longer and grows further.
const (
	firstUnavailableBackoff = time.Second
	maxUnavailableBackoff   = 30 * time.Second
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

// record takes note of an exchange's outcome.
func (b *backoff) record(err error) {
	if err == nil {
		*b = backoff{}
		return
	}
	b.until = time.Now().Add(b.length(err))
	b.failures++
	b.last = err
}

func (b *backoff) length(err error) time.Duration {
	first, longest := firstUnavailableBackoff, maxUnavailableBackoff
	var failed *tokenservice.Error
	known := errors.As(err, &failed)
	if known && failed.Outcome == tokenservice.Refused {
		first, longest = firstRefusedBackoff, maxRefusedBackoff
	}
	length := min(first<<min(b.failures, 16), longest)
	if known {
		length = max(length, failed.RetryAfter)
	}
	return length
}
