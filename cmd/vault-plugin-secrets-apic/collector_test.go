// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// keepCollector restores what a test changes of the process.
func keepCollector(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
}

func TestPercentFor(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, expected float64
		want           int
	}{
		// A small heap, whatever is done.
		{0, 0, 800}, {3 * mib, 0, 800}, {4 * mib, 400 * mib, 600}, {8 * mib, 0, 300}, {24 * mib, 0, 100},
		// A large one, which is at rest, busy, and too busy.
		{240 * mib, 0, 25}, {240 * mib, 60 * mib, 25}, {240 * mib, 120 * mib, 50}, {240 * mib, 1000 * mib, 100}, {1 << 60, 0, 25},
		// One in between, of which a quarter is less than the headroom.
		{48 * mib, 0, 50}, {48 * mib, 36 * mib, 75},
	} {
		if got := percentFor(c.live, c.expected); got != c.want {
			t.Errorf("with %g MiB alive and %g MiB expected it is %d, not %d", c.live/mib, c.expected/mib, got, c.want)
		}
	}
}

// TestCollector_followsTheLoad has a heap of 100 MiB, on which more or less is allocated.
func TestCollector_followsTheLoad(t *testing.T) {
	const mib = 1 << 20
	now := time.Now()
	c := &collector{allocated: 500 * mib, since: now}
	for i, step := range []struct {
		after     time.Duration
		allocated uint64
		want      int
	}{
		{2 * time.Second, 10 * mib, 50},
		{20 * time.Second, 100 * mib, 50},
		{time.Second, 8 * mib, 80},
		{2 * time.Minute, 12 * mib, 25},
		{0, 1 * mib, 100},
	} {
		now = now.Add(step.after)
		if got := c.percent(100*mib, c.allocated+step.allocated, now); got != step.want {
			t.Errorf("after step %d it is %d, not %d", i, got, step.want)
		}
	}
}

// TestCollector_followsTheHeap has the percentage fall after a collection that leaves much, and
// after one that finds little garbage.
func TestCollector_followsTheHeap(t *testing.T) {
	runtime.GC() // What other tests have left does not count.
	set := make(chan int, 1)
	(&collector{since: time.Now(), setPercent: func(percent int) int {
		select {
		case set <- percent:
		default: // Nobody listens any more.
		}
		return 0
	}}).tune()
	if percent := <-set; percent <= 100 {
		t.Fatalf("with a small heap it is %d", percent)
	}
	much := make([]byte, 128<<20)
	for percent := mostPercent; percent > 25; percent = <-set {
		runtime.GC()
	}
	runtime.KeepAlive(much)
}

// TestTuneCollector_operatorsOwn leaves alone what is set in the environment.
func TestTuneCollector_operatorsOwn(t *testing.T) {
	keepCollector(t)
	t.Setenv("GOGC", "100")
	t.Setenv("GOMEMLIMIT", "1GiB")
	limit := debug.SetMemoryLimit(-1)
	tuneCollector()
	if percent := debug.SetGCPercent(100); percent != 100 || debug.SetMemoryLimit(-1) != limit {
		t.Errorf("the percentage is %d, and the limit %d", percent, debug.SetMemoryLimit(-1))
	}
}
