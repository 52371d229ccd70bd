// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

// exampleReport is of a run whose reads all took the same time each way, and which meets every
// target.
func exampleReport() *report {
	c := &comparison{storage: "raft", answerSize: 588, cells: make(map[cellKey]*cell), exchange: []float64{0.02, 0.02}}
	for _, w := range []struct {
		name string
		took time.Duration
	}{
		{wayFloor, 1000 * time.Microsecond}, {wayShared, 900 * time.Microsecond}, {wayKV, 500 * time.Microsecond},
		{wayDedicated, 22 * time.Millisecond}, {wayLeased, 5 * time.Millisecond},
	} {
		c.ways = append(c.ways, w.name)
		for _, readers := range concurrencies {
			c.cells[cellKey{w.name, readers}] = exampleCell(w.took)
		}
	}
	mount := func(configs int) *scaled {
		return &scaled{
			configs: configs, before: 36 << 20, after: 36<<20 + int64(configs)<<10,
			rates: []float64{1000, 1000}, p99: []float64{0.02, 0.02}, first: []float64{0.1, 0.1},
		}
	}
	return &report{
		bench: &bench{duration: 2 * time.Second, rounds: 2, configs: 10_000}, machine: "one, 2 cores", load: "0.10", vault: "Vault v1.21.0",
		compared: []*comparison{c},
		scaled: &scaleResult{
			storage: "raft", mounts: []*scaled{mount(1), mount(100), mount(10_000)},
			endured: []endurance{{wayShared, 40 << 20, 60 << 20, 50 << 20}, {wayFloor, 30 << 20, 30 << 20, 30 << 20}},
		},
	}
}

func exampleCell(took time.Duration) *cell {
	one := sample{reads: 1, elapsed: took, times: []time.Duration{took}}
	return &cell{samples: []sample{one, one}, pluginCPU: took / 2, serverCPU: took, hasPlugin: true}
}

func TestTargets(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*report)
		missed []string
	}{
		"as measured": {func(*report) {}, nil},
		"slower than the floor": {
			func(r *report) {
				r.compared[0].cells[cellKey{wayShared, maxConcurrency}] = exampleCell(950 * time.Microsecond)
				r.compared[0].cells[cellKey{wayShared, 1}] = exampleCell(1100 * time.Microsecond)
			},
			[]string{
				"raft: shared token's reads/s to the floor's, 1 reader", "raft: shared token's p99 to the floor's, 1 reader",
				"raft: shared token's reads/s to the floor's, 32 readers", "raft: shared token's reads/s to kv v1's, 32 readers",
			},
		},
		"a slow exchange": {
			func(r *report) {
				r.compared[0].cells[cellKey{wayDedicated, 1}] = exampleCell(24 * time.Millisecond)
			},
			[]string{"raft: dedicated token's p50 to service + floor's p50, 1 reader"},
		},
		"memory": {
			func(r *report) {
				r.scaled.mounts[2].after += 40 << 20
				r.scaled.endured[0].busy = 65 << 20
			},
			[]string{"plugin memory for each of 10000 used configs", "plugin memory with one config after 100000 reads, the most under load"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := exampleReport()
			c.change(r)
			var missed []string
			for line := range strings.Lines(string(r.markdown("performance.svg"))) {
				if strings.HasSuffix(line, "| **missed** |\n") {
					missed = append(missed, strings.TrimSpace(strings.Split(line, "|")[1]))
				}
			}
			if got, want := strings.Join(missed, "\n"), strings.Join(c.missed, "\n"); got != want {
				t.Errorf("missed are\n%s\nbut should be\n%s", got, want)
			}
		})
	}
}
