// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// heapHeadroom is how much garbage a small heap may gather, in bytes. The plugin's own is a few
	// MiB, so that Go's default has it collected a hundred times a second under load. mostPercent
	// bounds the ratio for one that is tiny.
	heapHeadroom = 24 << 20
	mostPercent  = 800
	// cycleTime is how long it is to take until a large heap is collected again. To collect that
	// of 100,000 configs takes a core for a third of a second.
	cycleTime = 10 * time.Second
	// memoryShare is the share of a container's memory beyond which the collector works
	// harder. Vault runs in the same container.
	memoryShare = 0.25
)

// tuneCollector trades a few MiB of memory for time. What an operator has set, by GOGC or
// GOMEMLIMIT in the plugin's environment, is kept.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		(&collector{setPercent: debug.SetGCPercent, since: time.Now()}).tune()
	}
	// It fails where there are no cgroups, and then there is no limit to follow.
	_, _ = memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithMin(2*heapHeadroom))
}

// collector has Go's collector follow the heap and what is done with it.
type collector struct {
	setPercent func(percent int) (before int)
	// allocated is how many bytes had been allocated at since, which is when the last
	// collection ended.
	allocated uint64
	since     time.Time
}

// tune sets the percentage now and after each collection.
func (c *collector) tune() {
	live, allocated := heap()
	elapsed := time.Since(c.since)
	garbage := float64(allocated-c.allocated) * (float64(cycleTime) / float64(max(elapsed, 1)))
	c.allocated, c.since = allocated, c.since.Add(elapsed)
	c.setPercent(percentFor(float64(live), garbage))
	type sentinel struct{ _ *byte }
	runtime.AddCleanup(new(sentinel), (*collector).tune, c)
}

// percentFor is how much garbage may gather until the next collection, in percent of what is
// alive: what is expected within cycleTime, but a quarter of what is alive at least and as much
// as that at most, as is Go's default. If that is less than the headroom, it is that.
func percentFor(live, garbage float64) int {
	garbage = max(min(max(garbage, live/4), live), heapHeadroom)
	return int(min(100*garbage/max(live, 1), mostPercent))
}

// heap is what the last collection has left, and what was ever allocated, in bytes.
func heap() (live, allocated uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}
