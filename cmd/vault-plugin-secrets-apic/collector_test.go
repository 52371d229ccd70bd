// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"runtime"
	"runtime/debug"
	"testing"
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
		live uint64
		want int
	}{
		{0, 800}, {3 * mib, 800}, {4 * mib, 600}, {24 * mib, 100}, {30 * mib, 80}, {40 * mib, 60}, {48 * mib, 55}, {60 * mib, 55}, {240 * mib, 55}, {1 << 60, 55},
	} {
		if got := percentFor(c.live); got != c.want {
			t.Errorf("with %d MiB alive it is %d, not %d", c.live/mib, got, c.want)
		}
	}
}

// TestFollowHeap has the percentage fall after a collection that leaves much.
func TestFollowHeap(t *testing.T) {
	runtime.GC() // What other tests have left does not count.
	set := make(chan int, 1)
	followHeap(func(percent int) int {
		select {
		case set <- percent:
		default: // Nobody listens any more.
		}
		return 0
	})
	if percent := <-set; percent <= 100 {
		t.Fatalf("with a small heap it is %d", percent)
	}
	much := make([]byte, 128<<20)
	for percent := mostPercent; percent > leastPercent; percent = <-set {
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
