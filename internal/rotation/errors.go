// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"errors"
	"fmt"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// RefusedError is what the engine itself will not do until somebody has acted.
type RefusedError struct {
	// Reason says what, why, and what to do.
	Reason string
}

func (e *RefusedError) Error() string { return e.Reason }

func refusef(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

// waitError is no failure: there is something to wait for.
type waitError struct {
	until   time.Time
	because error
}

func (e *waitError) Error() string { return e.because.Error() }
func (e *waitError) Unwrap() error { return e.because }

func waitUntil(t time.Time, because string) error {
	return &waitError{until: t, because: errors.New(because)}
}

// doubtError is an error of storage, after which it is not known what is stored.
type doubtError struct{ error }

func (e *doubtError) Unwrap() error { return e.error }

func isDoubt(err error) bool {
	var doubt *doubtError
	return errors.As(err, &doubt)
}

// isRefused says that it will not help to try again soon: somebody has to act.
func isRefused(err error) bool {
	var (
		failed  *upstream.Error
		refused *RefusedError
	)
	return errors.Is(err, ErrNoSuchKey) || errors.As(err, &refused) || errors.As(err, &failed) && failed.Outcome == upstream.Refused
}

// hadNoEffect says that a creation that failed has certainly made no key.
func hadNoEffect(err error) bool {
	var failed *upstream.Error
	return errors.As(err, &failed) && !failed.OutcomeUnknown
}

// retryAfter is how long the issuer asked not to be called.
func retryAfter(err error) time.Duration {
	var failed *upstream.Error
	if errors.As(err, &failed) {
		return failed.RetryAfter
	}
	return 0
}
