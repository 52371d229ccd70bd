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
// the source's lock.
type Refresher struct {
	mu      sync.Mutex
	waiting byRefresh
	// timer is for the first that waits.
	timer *time.Timer
}

// refreshTime is a source's place in the queue of its Refresher, whose lock guards it.
type refreshTime struct {
	// at is in Unix nanoseconds.
	at int64
	// position is the index in the queue, from 1 on; 0 is not there.
	position int
}

// set has s refresh at a time, in place of the one that was set before.
func (r *Refresher) set(s *Source, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(s)
	s.refreshTime.at = at.UnixNano()
	heap.Push(&r.waiting, s)
	r.setTimer()
}

// unset has s refresh no more.
func (r *Refresher) unset(s *Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(s)
	r.setTimer()
}

// remove takes s out of the queue, if it is there. The caller holds the lock.
func (r *Refresher) remove(s *Source) {
	if s.refreshTime.position > 0 {
		heap.Remove(&r.waiting, s.refreshTime.position-1)
	}
}

// setTimer sets the timer for the first that waits. The caller holds the lock.
func (r *Refresher) setTimer() {
	if r.timer != nil {
		r.timer.Stop()
	}
	if len(r.waiting) > 0 {
		r.timer = time.AfterFunc(r.waiting.untilFirst(), r.wake)
	}
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
	if len(r.waiting) == 0 || r.waiting.untilFirst() > 0 {
		r.setTimer()
		return nil
	}
	return heap.Pop(&r.waiting).(*Source)
}

// byRefresh is a container/heap of sources, the one that is to be refreshed first on top.
type byRefresh []*Source

func (h byRefresh) untilFirst() time.Duration { return time.Until(time.Unix(0, h[0].refreshTime.at)) }

func (h byRefresh) Len() int           { return len(h) }
func (h byRefresh) Less(i, k int) bool { return h[i].refreshTime.at < h[k].refreshTime.at }

func (h byRefresh) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].refreshTime.position, h[k].refreshTime.position = i+1, k+1
}

// Push implements heap.Interface.
func (h *byRefresh) Push(x any) {
	s := x.(*Source)
	*h = append(*h, s)
	s.refreshTime.position = len(*h)
}

// Pop implements heap.Interface.
func (h *byRefresh) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.refreshTime.position = 0
	return s
}
