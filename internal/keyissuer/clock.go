// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"net/http"
	"sync"
	"time"
)

// clock is an http.RoundTripper that reads an issuer's clock off its answers.
type clock struct {
	// transport carries the requests.
	transport http.RoundTripper

	mu sync.Mutex
	// date is what the last dated answer said, and at when it came.
	date, at time.Time
}

// RoundTrip takes note of the answer's Date (RFC 9110, section 6.6.1), except of a
// redirection or a 5xx, whose date may be a gateway's.
func (c *clock) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.transport.RoundTrip(r)
	if err != nil || resp.StatusCode >= 500 || resp.StatusCode/100 == 3 {
		return resp, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.date, c.at = date, time.Now()
	}
	return resp, nil
}

// now never is ahead of the issuer's clock: a date has whole seconds, and takes its
// time to get here. It is this host's clock until there was a date.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.date.IsZero() {
		return time.Now().UTC()
	}
	return c.date.Add(time.Since(c.at))
}
