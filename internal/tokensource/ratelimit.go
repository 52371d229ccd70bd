// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// RateLimit remembers that a service has answered somebody with 429 and a time, before
// which nobody is to call it: all keys that are sent there share one. Nothing but the
// time ends it. Its methods may be called from many goroutines. A nil one is never in
// force; the zero value is ready to use.
type RateLimit struct {
	mu    sync.Mutex
	last  upstream.Error
	until time.Time
}

// Until is when the limit ends, or zero if it is not in force.
func (l *RateLimit) Until() time.Time {
	until, _ := l.state()
	return until
}

// Check returns a *BackoffError while the limit is in force. What it wraps says that
// nothing was sent on behalf of its caller, and for how long to back off.
func (l *RateLimit) Check() error {
	until, failed := l.state()
	if until.IsZero() {
		return nil
	}
	failed.OutcomeUnknown, failed.RetryAfter = false, time.Until(until)
	return &BackoffError{Last: &failed, RetryAt: until}
}

func (l *RateLimit) state() (until time.Time, last upstream.Error) {
	if l == nil {
		return time.Time{}, upstream.Error{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !time.Now().Before(l.until) {
		return time.Time{}, upstream.Error{}
	}
	return l.until, l.last
}

// Record takes note of a call's error, which may be nil. What was said of a call that was
// not made is no news.
func (l *RateLimit) Record(err error) {
	var (
		failed  *upstream.Error
		backoff *BackoffError
	)
	if l == nil || errors.As(err, &backoff) || !errors.As(err, &failed) {
		return
	}
	if failed.Status != http.StatusTooManyRequests || failed.RetryAfter <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(failed.RetryAfter); until.After(l.until) {
		l.last, l.until = *failed, until
	}
}
