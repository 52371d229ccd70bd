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
	// MiB, so that Go's default has it collected a hundred times a second under load. mostPercent
	// bounds the ratio for a heap that is tiny, and leastPercent for one that is large. A hundred
	// thousand configs then take less than 4 KiB each, and a core for a third of a second every few
	// seconds under load.
	heapHeadroom = 24 << 20
	mostPercent  = 800
	leastPercent = 55
	// memoryShare is the share of a container's memory beyond which the collector works
	// harder. Vault runs in the same container.
	memoryShare = 0.25
)

// tuneCollector has the plugin take some more MiB than by Go's defaults while it is small, and
// less while it is large. What an operator has set, by GOGC or GOMEMLIMIT in the plugin's
// environment, is kept.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		followHeap(debug.SetGCPercent)
	}
	// It fails where there are no cgroups, and then there is no limit to follow.
	_, _ = memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithMin(2*heapHeadroom))
}

// followHeap sets the collector's percentage now and after each collection.
func followHeap(setPercent func(percent int) (before int)) {
	percent := percentFor(liveHeap())
	// A collection that ends before there is another sentinel would go unseen.
	type sentinel struct{ _ *byte }
	runtime.AddCleanup(new(sentinel), followHeap, setPercent)
	setPercent(percent)
}

// percentFor is how much may be allocated until the next collection, in percent of what is
// alive, which is in bytes.
func percentFor(live uint64) int {
	return int(min(max(100*heapHeadroom/max(live, 1), leastPercent), mostPercent))
}

// liveHeap is what the last collection has left, in bytes.
func liveHeap() uint64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64()
}
