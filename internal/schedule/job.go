// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package schedule

import "time"

// job is a job that is queued or runs. The queue's lock guards it.
type job struct {
	name string
	// group is the name of the job's group, which exists while the job is queued.
	group string
	// due is when the job is to run or, while it runs, when it was upserted to run again.
	due time.Time
	// failures counts the job's failed runs in a row.
	failures int
	// running says that the job holds a slot; upserted and removed are what happened to it
	// meanwhile.
	running, upserted, removed bool
	// index is the job's place in the group's queue, or notQueued.
	index int
}

const notQueued = -1

// ran decides when a job is due again after a run.
func (j *job) ran(next time.Time, err error) {
	switch {
	case err == nil:
		j.failures = 0
	case next.IsZero():
		next = time.Now().Add(backoff(firstRetry, maxRetry, j.failures))
		j.failures++
	default:
		j.failures++
	}
	if asked := j.due; j.upserted && !asked.IsZero() && (next.IsZero() || asked.Before(next)) {
		next = asked
	}
	j.upserted = false
	if soonest := time.Now().Add(minPause); !next.IsZero() && next.Before(soonest) {
		next = soonest
	}
	j.due = next.Round(0)
}

// backoff doubles from first to most with the number of earlier failures.
func backoff(first, most time.Duration, failures int) time.Duration {
	return min(first<<min(failures, 16), most)
}

// byDue is a container/heap of jobs, the one that is due first on top.
type byDue []*job

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, k int) bool { return h[i].due.Before(h[k].due) }

func (h byDue) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].index, h[k].index = i, k
}

// Push implements heap.Interface.
func (h *byDue) Push(x any) {
	j := x.(*job)
	j.index = len(*h)
	*h = append(*h, j)
}

// Pop implements heap.Interface.
func (h *byDue) Pop() any {
	last := len(*h) - 1
	j := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	j.index = notQueued
	return j
}
