// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"math"
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
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 800}, {1 << 20, 800}, {3 << 20, 800}, {4 << 20, 600}, {8 << 20, 300}, {24 << 20, 100}, {1 << 30, 100}, {math.MaxUint64, 100},
	} {
		if got := percentFor(c.live); got != c.want {
			t.Errorf("with %d bytes alive it is %d, not %d", c.live, got, c.want)
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
	if percent := <-set; percent <= leastPercent {
		t.Fatalf("with a small heap it is %d", percent)
	}
	much := make([]byte, 64<<20)
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
