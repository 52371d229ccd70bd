// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"net/http"
	"strconv"
	"time"
)

const (
	// maxRetryAfter is the longest wait that a service may ask for.
	maxRetryAfter = time.Hour

	// An X-RateLimit-Reset is a number of seconds from now, as a time of 1973 would be
	// absurd; or, from here on, seconds since 1970; or milliseconds, as seconds would lie
	// in the year 5138; or absurd itself.
	firstEpochSeconds      = 100_000_000
	firstEpochMilliseconds = 100_000_000_000
	firstAbsurdReset       = 100_000_000_000_000
)

// retryAfter is how long an answer asks not to be called again: by its Retry-After or,
// if a 429 has none that makes sense, by its X-RateLimit-Reset. It is 0 if it does not
// ask, and maxRetryAfter at most.
func retryAfter(status int, h http.Header) time.Duration {
	wait, ok := parseRetryAfter(h)
	if !ok && status == http.StatusTooManyRequests {
		wait = untilReset(h)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// parseRetryAfter reads both forms of RFC 9110, section 10.2.3.
func parseRetryAfter(h http.Header) (wait time.Duration, ok bool) {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return date.Sub(sentAt(h)), true
}

// untilReset reads the forms of X-RateLimit-Reset that are in use, for no standard
// defines it: most services send seconds since 1970, some milliseconds, others the
// seconds that are left. Where requests remain in its window, the answer is about
// another limit.
func untilReset(h http.Header) time.Duration {
	if remaining, err := strconv.ParseUint(h.Get("X-RateLimit-Remaining"), 10, 63); err == nil && remaining > 0 {
		return 0
	}
	reset, err := strconv.ParseUint(h.Get("X-RateLimit-Reset"), 10, 63)
	switch {
	case err != nil || reset >= firstAbsurdReset:
		return 0
	case reset >= firstEpochMilliseconds:
		return time.UnixMilli(int64(reset)).Sub(sentAt(h))
	case reset >= firstEpochSeconds:
		return time.Unix(int64(reset), 0).Sub(sentAt(h))
	default:
		return time.Duration(reset) * time.Second
	}
}

// sentAt is the time by the clock that an answer's own times are of, which this host's
// may differ from: its Date, or this host's time if it has none.
func sentAt(h http.Header) time.Time {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		return date
	}
	return time.Now()
}
