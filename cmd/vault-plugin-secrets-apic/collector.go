// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// heapHeadroom is how much garbage a small heap may gather, in bytes. The plugin's own is a few
	// MiB, so that Go's default has it collected a hundred times a second under load.
	heapHeadroom = 24 << 20
	// leastPercent is Go's default, which is right for a heap that is large. mostPercent bounds
	// the ratio for one that is tiny.
	leastPercent, mostPercent = 100, 800
	// memoryShare is the share of a container's memory beyond which the collector works
	// harder. Vault runs in the same container.
	memoryShare = 0.25
)

// tuneCollector trades a few MiB of memory for time. What an operator has set, by GOGC or
// GOMEMLIMIT in the plugin's environment, is kept.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		followHeap(debug.SetGCPercent)
	}
	// It fails where there are no cgroups, and then there is no limit to follow.
	_, _ = memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithMin(2*heapHeadroom))
}

// followHeap sets the collector's percentage now and after each collection.
func followHeap(set func(percent int) (before int)) {
	set(percentFor(liveHeap()))
	type sentinel struct{ _ *byte }
	runtime.AddCleanup(new(sentinel), followHeap, set)
}

// percentFor has the heap grow by the headroom between two collections, or by as much as it is
// if that is more.
func percentFor(live uint64) int {
	return int(min(max(heapHeadroom*100/max(live, 1), leastPercent), mostPercent))
}

// liveHeap is what the last collection has left, in bytes.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
