// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package schedule runs named jobs when they are due: many at a time, but no more of
// one group than leaves room for others, and those of a group that fails as a whole
// one at a time until one succeeds. It knows nothing of what the jobs do.
package schedule

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// slots is how many jobs run at a time, and slotsPerGroup how many of one group, so
	// that one whose jobs hang leaves slots to the others.
	slots         = 16
	slotsPerGroup = 12

	// A job that fails and does not say when to try again waits for firstRetry, and
	// twice as long each time, to maxRetry.
	firstRetry = time.Minute
	maxRetry   = time.Hour

	// minPause is the shortest time between two runs of a job, even if it asks for less.
	minPause = time.Second

	// longestSleep is how long the timer waits at most. It goes by the monotonic clock, which
	// stops while the machine is suspended and does not follow when its clock is set.
	longestSleep = time.Minute

	// closeWait is how long Close waits for what runs.
	closeWait = 10 * time.Second
)

// Options configure a Queue.
type Options struct {
	// Run runs a job, until ctx ends at the latest, and returns when it is due again;
	// zero is never. With an error, zero is after a backoff.
	Run func(ctx context.Context, name string) (next time.Time, err error)
	// Unavailable says whether a job's error means that its group as a whole can't be
	// served, and for how long it asks to back off, 0 if it does not ask.
	Unavailable func(group string, err error) (retryAfter time.Duration, unavailable bool)
	// Panicked, if not nil, is called with what a job panicked with, on the stack of the
	// panic. The job counts as failed.
	Panicked func(name string, value any)
}

// Queue runs jobs. While none is due it sleeps, but for a look at the clock each
// minute while jobs wait.
type Queue struct {
	options Options
	ctx     context.Context
	cancel  context.CancelFunc

	mu     sync.Mutex
	jobs   map[string]*job
	groups map[string]*group
	// running counts the jobs that hold a slot.
	running int
	// timer is for the first job that will be due. wakeUps counts how often it fired.
	timer   *time.Timer
	wakeUps int
	closed  bool
	// ended is closed when the last job has ended after Close.
	ended chan struct{}
}

// New returns an empty queue. It has to be closed.
func New(o Options) *Queue {
	q := &Queue{options: o, jobs: make(map[string]*job), groups: make(map[string]*group), ended: make(chan struct{})}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

// Upsert adds a job that is due at a time, or replaces the time of a job that is there,
// and resets the job's failures. Zero is never, but what a run in progress returns counts
// all the same. A job that is running runs again afterwards.
func (q *Queue) Upsert(name, group string, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	j := q.jobs[name]
	if j == nil {
		j = &job{name: name, index: notQueued}
		q.jobs[name] = j
	}
	q.unqueue(j)
	// Without the reading of the monotonic clock: an order of times of which only some
	// have one would change when the clock is set.
	j.group, j.due, j.failures = group, due.Round(0), 0
	if j.running {
		j.upserted, j.removed = true, false
		return
	}
	q.enqueue(j)
	q.dispatch()
}

// Remove removes a job. A run in progress goes on.
func (q *Queue) Remove(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j := q.jobs[name]
	if j == nil || q.closed {
		return
	}
	if j.running {
		j.upserted, j.removed = false, true
		return
	}
	q.unqueue(j)
	delete(q.jobs, name)
	q.dispatch()
}

// Close starts no more jobs, ends the context of those that run, and waits for them for
// ten seconds at most.
func (q *Queue) Close() {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		q.cancel()
		q.end()
	}
	q.mu.Unlock()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-q.ended:
	case <-timer.C:
	}
}

// end stops the timer and, unless jobs still run, ends the wait of Close. The caller holds
// the lock.
func (q *Queue) end() {
	if q.timer != nil {
		q.timer.Stop()
	}
	if q.running == 0 {
		close(q.ended)
	}
}

func (q *Queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wakeUps++
	q.dispatch()
}

// dispatch starts what is due, and sets the timer for what will be. It is called after each
// change of what is due or runs. The caller holds the lock.
func (q *Queue) dispatch() {
	if q.closed {
		return
	}
	if q.timer != nil {
		q.timer.Stop()
	}
	for q.running < slots {
		first := q.first()
		if first == nil {
			return
		}
		if wait := time.Until(first.ready()); wait > 0 {
			q.setTimer(min(wait, longestSleep))
			return
		}
		q.start(first)
	}
}

// first is the group that is ready next, nil if none will be before something else
// happens. It clears groups without jobs on its way. The caller holds the lock.
func (q *Queue) first() *group {
	var first *group
	for _, g := range q.groups {
		q.tidy(g)
		if g.hasSlot() && len(g.queue) > 0 && (first == nil || g.isBefore(first)) {
			first = g
		}
	}
	return first
}

func (q *Queue) setTimer(wait time.Duration) {
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, q.wake)
		return
	}
	q.timer.Reset(wait)
}

// start gives the first job of a group a slot. The caller holds the lock.
func (q *Queue) start(g *group) {
	j := heap.Pop(&g.queue).(*job)
	j.running = true
	g.running++
	q.running++
	go q.perform(&run{job: j, group: g, era: g.era})
}

// run is one run of a job, in the group that it had at the start, and the era that
// the group was in.
type run struct {
	job   *job
	group *group
	era   int
}

var errPanicked = errors.New("the job panicked")

func (q *Queue) perform(r *run) {
	next, err := time.Time{}, errPanicked
	defer func() {
		if err == errPanicked {
			if p := recover(); p != nil && q.options.Panicked != nil {
				q.options.Panicked(r.job.name, p)
			}
		}
		q.finish(r, next, err)
	}()
	next, err = q.options.Run(q.ctx, r.job.name)
}

// finish gives a job's slot back, and queues the job for its next run.
func (q *Queue) finish(r *run, next time.Time, err error) {
	var retryAfter time.Duration
	var unavailable bool
	if err != nil {
		retryAfter, unavailable = q.options.Unavailable(r.group.name, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	r.group.running--
	r.job.running = false
	if q.closed {
		q.end()
		return
	}
	if unavailable {
		r.group.failed(r.era, retryAfter)
	} else {
		r.group.succeeded(r.era)
	}
	if r.job.removed {
		delete(q.jobs, r.job.name)
	} else {
		r.job.ran(next, err)
		q.enqueue(r.job)
	}
	q.tidy(r.group)
	q.dispatch()
}

// enqueue has a job wait until it is due, or removes it if it never is. The caller
// holds the lock.
func (q *Queue) enqueue(j *job) {
	if j.due.IsZero() {
		delete(q.jobs, j.name)
		return
	}
	g := q.groups[j.group]
	if g == nil {
		g = &group{name: j.group}
		q.groups[j.group] = g
	}
	heap.Push(&g.queue, j)
}

// unqueue takes a job out of its group's queue, if it is there. The caller holds the
// lock.
func (q *Queue) unqueue(j *job) {
	if j.index == notQueued {
		return
	}
	g := q.groups[j.group]
	heap.Remove(&g.queue, j.index)
	q.tidy(g)
}

// tidy removes a group that has no jobs and is not backed off from. The caller holds the lock.
func (q *Queue) tidy(g *group) {
	if len(g.queue) == 0 && g.running == 0 && !time.Now().Before(g.until) {
		delete(q.groups, g.name)
	}
}
