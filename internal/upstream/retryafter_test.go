// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetryAfter_forms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		date := func(d time.Duration) string { return now.Add(d).UTC().Format(http.TimeFormat) }
		epoch := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
		milliseconds := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).UnixMilli(), 10) }
		type header = map[string]string
		for name, c := range map[string]struct {
			status int
			header header
			want   time.Duration
		}{
			"none":                             {429, nil, 0},
			"seconds":                          {429, header{"Retry-After": "90"}, 90 * time.Second},
			"seconds of a 503":                 {503, header{"Retry-After": "90"}, 90 * time.Second},
			"a day of seconds":                 {429, header{"Retry-After": "86400"}, time.Hour},
			"negative seconds":                 {429, header{"Retry-After": "-1"}, 0},
			"a date":                           {429, header{"Retry-After": date(90 * time.Second)}, 90 * time.Second},
			"a date by the service's clock":    {429, header{"Retry-After": date(690 * time.Second), "Date": date(10 * time.Minute)}, 90 * time.Second},
			"a past date":                      {429, header{"Retry-After": date(-time.Minute)}, 0},
			"a date of next year":              {429, header{"Retry-After": date(365 * 24 * time.Hour)}, time.Hour},
			"words":                            {429, header{"Retry-After": "soon"}, 0},
			"reset in seconds since 1970":      {429, header{"X-RateLimit-Reset": epoch(90 * time.Second)}, 90 * time.Second},
			"reset by the service's clock":     {429, header{"X-RateLimit-Reset": epoch(690 * time.Second), "Date": date(10 * time.Minute)}, 90 * time.Second},
			"reset in milliseconds since 1970": {429, header{"X-RateLimit-Reset": milliseconds(90 * time.Second)}, 90 * time.Second},
			"reset in seconds from now":        {429, header{"X-RateLimit-Reset": "90"}, 90 * time.Second},
			"reset tomorrow":                   {429, header{"X-RateLimit-Reset": epoch(24 * time.Hour)}, time.Hour},
			"reset in a day from now":          {429, header{"X-RateLimit-Reset": "86400"}, time.Hour},
			"reset in the past":                {429, header{"X-RateLimit-Reset": epoch(-time.Minute)}, 0},
			"reset that no clock shows":        {429, header{"X-RateLimit-Reset": "99999999999999999"}, 0},
			"reset beyond 64 bits":             {429, header{"X-RateLimit-Reset": "99999999999999999999999"}, 0},
			"reset in words":                   {429, header{"X-RateLimit-Reset": "soon"}, 0},
			"Retry-After comes first":          {429, header{"Retry-After": "5", "X-RateLimit-Reset": "90"}, 5 * time.Second},
			"a Retry-After of 0 comes first":   {429, header{"Retry-After": "0", "X-RateLimit-Reset": "90"}, 0},
			"reset after words":                {429, header{"Retry-After": "soon", "X-RateLimit-Reset": "90"}, 90 * time.Second},
			"reset of a used-up window":        {429, header{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "90"}, 90 * time.Second},
			"reset of another limit's window":  {429, header{"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "90"}, 0},
			"reset of a 503":                   {503, header{"X-RateLimit-Reset": "90"}, 0},
		} {
			h := http.Header{}
			for field, value := range c.header {
				h.Set(field, value)
			}
			if got := retryAfter(c.status, h); got != c.want {
				t.Errorf("%s: the wait is %s, want %s", name, got, c.want)
			}
		}
	})
}

func TestSend_reportsWhenALimitIsReset(t *testing.T) {
	url, requests := newService(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-RateLimit-Reset", "90")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	_, err := put(t.Context(), newCaller(t, url, 2), url, false)
	if failed := failure(t, err); failed.RetryAfter != 90*time.Second || requests.Load() != 1 {
		t.Errorf("it asks for %s after %d requests", failed.RetryAfter, requests.Load())
	}
}
