// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAdvance_windowOfARotation is when a rotation may begin, and when there is something to
// do if it may not.
func TestAdvance_windowOfARotation(t *testing.T) {
	for name, c := range map[string]struct {
		due, until time.Duration
		asked      bool
		want       bool
		next       time.Duration
	}{
		"before it is due":        {due: time.Minute, until: time.Hour, next: time.Minute},
		"inside the window":       {due: -time.Minute, until: time.Hour, want: true},
		"after the window":        {due: -time.Hour, until: 0},
		"after it, but asked for": {due: -time.Hour, until: 0, asked: true, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now()
				a := &advance{plan: Plan{Due: now.Add(c.due), Until: now.Add(c.until)}, want: want{rotate: c.asked}}
				if got := a.isWanted(); got != c.want {
					t.Errorf("it is wanted: %t", got)
				}
				if next := now.Add(c.next); !c.want && !a.out.next.Equal(next) {
					t.Errorf("there is something to do at %s, not %s", a.out.next, next)
				}
			})
		})
	}
	a := &advance{plan: Plan{Due: time.Now().Add(-time.Hour)}}
	if !a.isWanted() {
		t.Error("without a window, one that was missed is not wanted")
	}
}

// TestAdvance_backoffInsideAWindow holds that a failure is tried again before the window ends.
func TestAdvance_backoffInsideAWindow(t *testing.T) {
	for name, c := range map[string]struct{ left, want time.Duration }{
		"begins":       {time.Hour, 6 * time.Minute},
		"ends":         {time.Minute, firstBackoff},
		"is over":      {-time.Minute, firstBackoff},
		"is a day off": {24 * time.Hour, maxBackoff},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &advance{plan: Plan{Until: time.Now().Add(c.left)}}
				if got := a.longestBackoff(); got != c.want {
					t.Errorf("the longest backoff is %s", got)
				}
			})
		})
	}
	if got := (&advance{}).longestBackoff(); got != maxBackoff {
		t.Errorf("without a window, the longest backoff is %s", got)
	}
}
