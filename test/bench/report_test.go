// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// exampleReport is of a run whose reads all took the same time each way, and which meets every
// target.
func exampleReport() *report {
	c := &comparison{Storage: "raft", Cells: map[int]map[string]rounds{1: {}, maxConcurrency: {}}}
	for way, took := range map[string]time.Duration{
		wayFloor: time.Millisecond, wayShared: 900 * time.Microsecond, wayKV: 500 * time.Microsecond,
		wayDedicated: 22 * time.Millisecond, wayService: 20 * time.Millisecond,
	} {
		c.Ways = append(c.Ways, way)
		for _, cells := range c.Cells {
			cells[way] = exampleRounds(took)
		}
	}
	return &report{Facts: map[string]any{"Cores": 2}, Compared: []*comparison{c}, Endured: []endurance{{Busy: 60 << 20}}, Profiled: []profile{{Process: "plugin"}}}
}

func exampleRounds(took time.Duration) rounds {
	var one sample
	for i := range 2 {
		one.Add(&vegeta.Result{Code: 200, Timestamp: time.Time{}.Add(time.Duration(i+1) * took), Latency: took})
	}
	one.Close()
	return rounds{one, one}
}

func exampleScale() *scaleReport {
	mount := func(configs int) *scaled {
		unused := state{Listing: []float64{0.1}, Scraping: []float64{0.2}}
		used := unused
		used.usage = usage{Resident: configs << 11, LiveHeap: configs << 10}
		return &scaled{Configs: configs, rounds: exampleRounds(time.Millisecond), First: []float64{0.1}, Unused: unused, Used: used, After: used.usage,
			Reading: time.Second, Meanwhile: exampleRounds(time.Millisecond), Beyond: exampleRounds(time.Millisecond)}
	}
	return &scaleReport{Mounts: []*scaled{mount(1), mount(100_000)}}
}

func TestTargets_missed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*report, *scaleReport)
		missed string
	}{
		"as measured": {func(*report, *scaleReport) {}, ""},
		"slower than the floor": {func(r *report, _ *scaleReport) {
			r.Compared[0].Cells[maxConcurrency][wayShared] = exampleRounds(950 * time.Microsecond)
			r.Compared[0].Cells[1][wayShared] = exampleRounds(1100 * time.Microsecond)
		}, `raft: shared token's reads/s to the floor's, 1 reader
raft: shared token's p99 to the floor's, 1 reader
raft: shared token's reads/s to the floor's, 32 readers
raft: shared token's reads/s to kv v1's, 32 readers
`},
		"a slow exchange": {func(r *report, _ *scaleReport) {
			r.Compared[0].Cells[1][wayDedicated] = exampleRounds(24 * time.Millisecond)
		}, "raft: dedicated token's p50 to service + floor's p50, 1 reader\n"},
		"memory": {func(r *report, s *scaleReport) {
			s.Mounts[1].Used.LiveHeap += 400 << 20
			s.Mounts[1].After.Resident += 400 << 20
			s.Mounts[1].Used.Resident += 400 << 20
			r.Endured[0].Busy = 65 << 20
		}, "plugin memory with one config after 100000 reads, the most under load\nplugin's live heap for each of 100000 used configs\n" +
			"plugin's resident set for each of 100000 used configs, right after the first read of all\n" +
			"plugin's resident set for each of 100000 used configs, after the rounds\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := exampleReport(), exampleScale()
			c.change(r, s)
			missed := ""
			for line := range strings.Lines(render("compare", r) + render("scale", s)) {
				if strings.HasSuffix(line, "| **missed** |\n") {
					missed += strings.TrimSpace(strings.Split(line, "|")[1]) + "\n"
				}
			}
			if missed != c.missed {
				t.Errorf("missed are\n%s\nbut should be\n%s", missed, c.missed)
			}
		})
	}
}

func TestWriteDocument_keepsTheOtherPart(t *testing.T) {
	b := &bench{out: filepath.Join(t.TempDir(), "performance.md")}
	r, s := exampleReport(), exampleScale()
	b.writeDocument("scale", s)
	b.writeDocument("compare", r)
	b.writeDocument("scale", s)
	if content := string(must(os.ReadFile(b.out))); content != render("compare", r)+scaleMark+render("scale", s) {
		t.Errorf("the document is\n%s", content)
	}
}

func TestDrawChart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chart.svg")
	exampleReport().drawChart(path)
	drawn := string(must(os.ReadFile(path)))
	for _, want := range []string{wayFloor, wayService, "1111 (1.11×)", "raft storage, 32 readers", "p99.9"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("the chart does not say %q", want)
		}
	}
}
