// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// exampleReport is of a run whose reads all took the same time each way, and which meets every
// target.
func exampleReport() *report {
	c := &comparison{Storage: "raft", AnswerSize: 588, Readers: []int{1, maxConcurrency}, cells: make(map[cellKey]*cell)}
	took := map[string]time.Duration{
		wayFloor: time.Millisecond, wayShared: 900 * time.Microsecond, wayKV: 500 * time.Microsecond,
		wayDedicated: 22 * time.Millisecond, wayLeased: 5 * time.Millisecond, wayService: 20 * time.Millisecond,
	}
	c.Ways = slices.Sorted(maps.Keys(took))
	for _, way := range c.Ways {
		for _, readers := range c.Readers {
			c.cells[cellKey{way, readers}] = exampleCell(took[way])
		}
	}
	return &report{
		Compared: []*comparison{c}, Image: "performance.svg",
		Endured: []endurance{{wayShared, 40 << 20, 60 << 20, 50 << 20}, {wayFloor, 30 << 20, 30 << 20, 30 << 20}},
		Profiled: []profile{
			{"plugin", 1, map[string]float64{"engine": 3, "gRPC and TLS": 40, partAll: 43}, map[string]float64{"engine": 1, partAll: 1}},
			{"Vault", 32, map[string]float64{"Vault": 90, partAll: 90}, map[string]float64{"Vault": 2, partAll: 2}},
		},
	}
}

func exampleCell(took time.Duration) *cell {
	var one sample
	for i := range 2 {
		one.Add(&vegeta.Result{Code: 200, Timestamp: time.Time{}.Add(time.Duration(i+1) * took), Latency: took})
	}
	one.Close()
	c := &cell{pluginCPU: took / 2, serverCPU: took}
	c.add(one)
	c.add(one)
	return c
}

func exampleScale() *scaleReport {
	mount := func(configs int) *scaled {
		m := &scaled{Configs: configs, Rates: []float64{1000, 1000}, P99s: []float64{0.02, 0.02}, First: []float64{0.1, 0.1}}
		for _, s := range []*state{&m.Unused, &m.Used} {
			s.usage = usage{Resident: 40 << 20, LiveHeap: 8 << 20}
			s.Listing, s.Scraping = []float64{0.1}, []float64{0.2}
		}
		m.Used.Resident += configs << 11
		m.Used.LiveHeap += configs << 10
		return m
	}
	return &scaleReport{Mounts: []*scaled{mount(1), mount(1_000), mount(100_000)}}
}

func TestTargets_missed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*report, *scaleReport)
		missed string
	}{
		"as measured": {func(*report, *scaleReport) {}, ""},
		"slower than the floor": {func(r *report, _ *scaleReport) {
			r.Compared[0].cells[cellKey{wayShared, maxConcurrency}] = exampleCell(950 * time.Microsecond)
			r.Compared[0].cells[cellKey{wayShared, 1}] = exampleCell(1100 * time.Microsecond)
		}, `raft: shared token's reads/s to the floor's, 1 reader
raft: shared token's p99 to the floor's, 1 reader
raft: shared token's reads/s to the floor's, 32 readers
raft: shared token's reads/s to kv v1's, 32 readers
`},
		"a slow exchange": {func(r *report, _ *scaleReport) {
			r.Compared[0].cells[cellKey{wayDedicated, 1}] = exampleCell(24 * time.Millisecond)
		}, "raft: dedicated token's p50 to service + floor's p50, 1 reader\n"},
		"memory": {func(r *report, s *scaleReport) {
			s.Mounts[2].Used.LiveHeap += 400 << 20
			r.Endured[0].Busy = 65 << 20
		}, "plugin memory with one config after 100000 reads, the most under load\nplugin's live heap for each of 100000 used configs\n"},
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

func TestRender_profiles(t *testing.T) {
	got := render("profiles", exampleReport().Profiled)
	for _, want := range []string{
		"| CPU | plugin, 1 reader | Vault, 32 readers |\n|---|--:|--:|\n| garbage collection | 0 µs | 0 µs |\n| engine | 3 µs | 0 µs |\n",
		"| other | 0 µs | 0 µs |\n| **all** | 43 µs | 90 µs |\n\n| allocated | plugin",
		"| **all** | 1.0 KiB | 2.0 KiB |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestWriteDocument_keepsTheOtherPart(t *testing.T) {
	b := &bench{out: filepath.Join(t.TempDir(), "performance.md")}
	b.writeDocument("scale", exampleScale())
	b.writeDocument("compare", exampleReport())
	b.writeDocument("scale", exampleScale())
	if content := string(must(os.ReadFile(b.out))); content != render("compare", exampleReport())+scaleMark+render("scale", exampleScale()) {
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
	for decoder := xml.NewDecoder(strings.NewReader(drawn)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
