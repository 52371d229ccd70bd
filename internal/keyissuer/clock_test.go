// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// dated is a transport whose answers have a status and a date.
type dated struct {
	status int
	date   string
	err    error
}

func (d dated) RoundTrip(*http.Request) (*http.Response, error) {
	if d.err != nil {
		return nil, d.err
	}
	return &http.Response{StatusCode: d.status, Header: http.Header{"Date": {d.date}}}, nil
}

func TestClock_goesOnFromTheLastAnswersDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := time.Now().UTC().Add(-7 * time.Minute).Truncate(time.Second)
		dateOf := func(ahead time.Duration) string { return theirs.Add(ahead).Format(http.TimeFormat) }
		var c clock
		ask := func(d dated) {
			c.transport = d
			_, _ = c.RoundTrip(nil)
		}
		require := func(step string, want time.Time) {
			t.Helper()
			if got := c.now(); !got.Equal(want) {
				t.Errorf("%s: it is %s, want %s", step, got, want)
			}
		}
		require("before any answer", time.Now())
		ask(dated{status: http.StatusOK, date: "yesterday"})
		require("after an answer of no date", time.Now())
		ask(dated{status: http.StatusOK, date: dateOf(0)})
		require("after an answer", theirs)
		time.Sleep(90 * time.Second)
		require("90 s later", theirs.Add(90*time.Second))
		ask(dated{status: http.StatusNotFound, date: dateOf(time.Hour)})
		require("after a refusal", theirs.Add(time.Hour))
		for _, d := range []dated{{status: 502, date: dateOf(0)}, {status: 307, date: dateOf(0)}, {err: errors.New("no")}} {
			ask(d)
			require("after what need not be the issuer's", theirs.Add(time.Hour))
		}
	})
}
