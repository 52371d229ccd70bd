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
	// of tens of thousands of configs takes a core for more than a hundred milliseconds.
	cycleTime = 10 * time.Second
	// memoryShare is the share of a container's memory beyond which the collector works
	// harder. Vault runs in the same container.
	memoryShare = 0.25
)

// tuneCollector has the plugin take some more MiB than by Go's defaults while it is small, and
// less while it is large and has little to do. What an operator has set, by GOGC or
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
	// allocated is how many bytes had been allocated at since, when it was tuned last.
	allocated uint64
	since     time.Time
}

// tune sets the percentage now and after each collection.
func (c *collector) tune() {
	live, allocated := heap()
	percent := c.percent(live, allocated, time.Now())
	// A collection that ends before there is another sentinel would go unseen.
	type sentinel struct{ _ *byte }
	runtime.AddCleanup(new(sentinel), (*collector).tune, c)
	c.setPercent(percent)
}

// percent expects as much to be allocated within cycleTime as there was since the last time.
func (c *collector) percent(live, allocated uint64, now time.Time) int {
	cycles := max(now.Sub(c.since), 1).Seconds() / cycleTime.Seconds()
	expected := float64(allocated-c.allocated) / cycles
	c.allocated, c.since = allocated, now
	return percentFor(float64(live), expected)
}

// percentFor is how much may be allocated until the next collection, in percent of what is
// alive: what is expected, but a quarter of what is alive at least and as much as that at most,
// which is Go's default. If that is less than the headroom, it is that.
func percentFor(live, expected float64) int {
	allowed := max(min(max(expected, live/4), live), heapHeadroom)
	return int(min(100*allowed/max(live, 1), mostPercent))
}

// heap is what the last collection has left, and what was ever allocated, in bytes.
func heap() (live, allocated uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}
