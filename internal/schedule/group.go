// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package schedule

import (
	"cmp"
	"time"
)

// A group that fails backs off for firstGroupRetry, and twice as long each time, up to
// maxGroupRetry. firstGroupRetry is short because one failure may be that of one job.
const (
	firstGroupRetry = 10 * time.Second
	maxGroupRetry   = 10 * time.Minute
)

// group is jobs that one service serves, such as one host. The queue's lock guards it.
type group struct {
	name    string
	queue   byDue
	running int
	// failures counts the group's failures in a row. While it is not 0, the group's jobs
	// run one at a time, and none before until.
	failures int
	until    time.Time
	// era grows with each failure: a run that was started in an earlier era says nothing
	// about the group's present state.
	era int
}

// hasSlot says whether another job of the group may run.
func (g *group) hasSlot() bool {
	if g.failures > 0 {
		return g.running == 0
	}
	return g.running < slotsPerGroup
}

// ready is when the first job of the group's queue, which must not be empty, may run.
func (g *group) ready() time.Time {
	if due := g.queue[0].due; due.After(g.until) {
		return due
	}
	return g.until
}

// isBefore orders groups by when they are ready, and then by name, so that the order
// does not change from one time to the next.
func (g *group) isBefore(other *group) bool {
	return cmp.Or(g.ready().Compare(other.ready()), cmp.Compare(g.name, other.name)) < 0
}

// failed starts or extends the backoff. Runs that were under way together fail together,
// and count as one.
func (g *group) failed(era int, retryAfter time.Duration) {
	wait := retryAfter
	if era == g.era {
		wait = max(wait, backoff(firstGroupRetry, maxGroupRetry, g.failures))
		g.failures++
		g.era++
	}
	if until := time.Now().Add(wait); until.After(g.until) {
		g.until = until
	}
}

// succeeded ends the group's backoff, unless it began during the run.
func (g *group) succeeded(era int) {
	if era == g.era {
		g.failures, g.until = 0, time.Time{}
	}
}
