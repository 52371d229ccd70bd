// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"container/heap"
	"sync"
	"time"
)

// Refresher has sources replace their tokens in the background, each at its time. It has one timer
// for all: with one each, every config in use would take 130 bytes more. The zero value is ready
// to use, and its methods may be called from many goroutines. Who sets or unsets a source holds
// the source's lock, so that none is set after it was closed.
type Refresher struct {
	mu      sync.Mutex
	waiting byRefresh
	// timer is for the first that waits. It and started are set when the first source is.
	timer   *time.Timer
	started time.Time
}

// queuePlace is a source's place in the queue of its Refresher, whose lock guards it.
type queuePlace struct {
	// at is when the source is to be refreshed, from the Refresher's start on by the monotonic
	// clock. By the time of day, what waits for a backoff's end, which goes by that clock, would be
	// due long before or after it once somebody has set the time.
	at time.Duration
	// position is the index in the queue, from 1 on; 0 is not there.
	position int
}

// set has s refresh at a time, in place of the one that was set before.
func (r *Refresher) set(s *Source, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started.IsZero() {
		r.started = time.Now()
	}
	r.remove(s)
	s.refreshPlace.at = time.Since(r.started) + time.Until(at)
	heap.Push(&r.waiting, s)
	r.setTimer()
}

// unset has s refresh no more.
func (r *Refresher) unset(s *Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.remove(s) {
		r.setTimer()
	}
}

// remove takes s out of the queue and returns whether it was there. The caller holds the lock.
func (r *Refresher) remove(s *Source) bool {
	if s.refreshPlace.position == 0 {
		return false
	}
	heap.Remove(&r.waiting, s.refreshPlace.position-1)
	return true
}

// setTimer sets the timer for the first that waits. The caller holds the lock.
func (r *Refresher) setTimer() {
	switch {
	case r.timer == nil:
		r.timer = time.AfterFunc(r.untilFirst(), r.wake)
	case len(r.waiting) == 0:
		r.timer.Stop()
	default:
		r.timer.Reset(r.untilFirst())
	}
}

// untilFirst is for how long the first that waits is to wait. The caller holds the lock.
func (r *Refresher) untilFirst() time.Duration {
	return r.waiting[0].refreshPlace.at - time.Since(r.started)
}

// wake refreshes what is due.
func (r *Refresher) wake() {
	for s := r.next(); s != nil; s = r.next() {
		s.refresh()
	}
}

// next takes a source out of the queue that is due. If none is, it sets the timer and returns nil.
func (r *Refresher) next() *Source {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 || r.untilFirst() > 0 {
		r.setTimer()
		return nil
	}
	return heap.Pop(&r.waiting).(*Source)
}

// byRefresh is a container/heap of sources, the one that is to be refreshed first on top.
type byRefresh []*Source

func (h byRefresh) Len() int           { return len(h) }
func (h byRefresh) Less(i, k int) bool { return h[i].refreshPlace.at < h[k].refreshPlace.at }

func (h byRefresh) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].refreshPlace.position, h[k].refreshPlace.position = i+1, k+1
}

// Push implements heap.Interface.
func (h *byRefresh) Push(x any) {
	s := x.(*Source)
	*h = append(*h, s)
	s.refreshPlace.position = len(*h)
}

// Pop implements heap.Interface.
func (h *byRefresh) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.refreshPlace.position = 0
	return s
}
