// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"errors"
	"fmt"
	"time"
)

// ErrClosed is the error of a source that was replaced or closed meanwhile.
var ErrClosed = errors.New("token source is closed")

// ErrElsewhere is what an Exchanger returns that leaves the exchange to another node. It is
// no failure, and nothing is tried again.
var ErrElsewhere = errors.New("another node gets the token")

// BackoffError is the error while a failure is remembered and no call is made.
type BackoffError struct {
	// Last is the failure that is remembered.
	Last error
	// RetryAt is when the service will be asked again.
	RetryAt time.Time
}

// Error is the remembered failure and the time until the next attempt.
func (e *BackoffError) Error() string {
	wait := max(time.Until(e.RetryAt), 0)
	return fmt.Sprintf("%s; the next attempt is possible in %d s", e.Last, seconds(wait))
}

// Unwrap returns the remembered failure.
func (e *BackoffError) Unwrap() error { return e.Last }

// BusyError is the error for a caller whose turn did not come. It says nothing
// about the service.
type BusyError struct {
	// Waited is how long the caller waited for its turn.
	Waited time.Duration
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("at most %d exchanges run at a time for one config, and the turn of this one did not come within %s; try again later, with fewer callers at once", MaxExchanges, e.Waited)
}

// TooShortError is the error for a caller that asks for more life than a token can
// be promised to have.
type TooShortError struct {
	// MinTTL is what the caller asked for.
	MinTTL time.Duration
	// Longest is the most that it may ask for, in whole seconds.
	Longest time.Duration
	// limit says what Longest is.
	limit string
}

func (e *TooShortError) Error() string {
	return fmt.Sprintf("min_ttl of %s cannot be promised; the longest is %s, %s", e.MinTTL, e.Longest, e.limit)
}

func tooShort(minTTL, longest time.Duration, limit string) error {
	return &TooShortError{MinTTL: minTTL, Longest: longest.Truncate(time.Second), limit: limit}
}
