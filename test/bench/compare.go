// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/procfs"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

const (
	// serviceLatency is what the simulated token service takes for an exchange.
	serviceLatency = 20 * time.Millisecond
	// leasedReads bounds how many leases a round piles up.
	leasedReads = 1000
	warmUp      = 200 * time.Millisecond
)

// The ways to get a response that are compared.
const (
	wayShared    = "shared token"
	wayFloor     = "floor plugin"
	wayKV        = "kv v1"
	wayDedicated = "dedicated token"
	wayLeased    = "shared token, leased"
	wayService   = "token service"
)

// way is one of them.
type way struct {
	name, mount string // the mount of a plugin, whose CPU time is counted
	target      vegeta.Target
	reads       int // the most that a round makes; 0 is any number
}

// cell is what was measured of one way with so many readers, by round. Times are in seconds.
type cell struct {
	Rates, P50s, P99s    []float64
	samples              []sample
	reads                uint64
	pluginCPU, serverCPU time.Duration // of all rounds
}

func (c *cell) add(s sample) {
	c.Rates, c.P50s, c.P99s = append(c.Rates, s.Throughput), append(c.P50s, s.quantile(0.5)), append(c.P99s, s.P99())
	c.samples, c.reads = append(c.samples, s), c.reads+s.Requests
}

// PluginCPU and ServerCPU are for each read.
func (c *cell) PluginCPU() time.Duration { return c.pluginCPU / time.Duration(c.reads) }
func (c *cell) ServerCPU() time.Duration { return c.serverCPU / time.Duration(c.reads) }

type cellKey struct {
	way     string
	readers int
}

// comparison is what was measured on one server.
type comparison struct {
	Storage    string
	AnswerSize int
	Readers    []int
	Ways       []string
	cells      map[cellKey]*cell
}

// Cell is what was measured of a way.
func (c *comparison) Cell(way string, readers int) *cell { return c.cells[cellKey{way, readers}] }

// Floor is what others are compared with.
func (c *comparison) Floor(readers int) *cell { return c.Cell(wayFloor, readers) }

// compare measures all ways in turn, round after round, so that whatever else the
// machine does falls on all of them. Every second round goes backwards.
func (b *bench) compare(ctx context.Context, s *server, storage string) *comparison {
	result := &comparison{Storage: storage, Readers: []int{1, maxConcurrency}, cells: make(map[cellKey]*cell)}
	ways := b.setUpWays(ctx, s, result)
	for _, w := range ways {
		result.Ways = append(result.Ways, w.name)
	}
	b.sim.Inject(apicsim.Fault{Latency: serviceLatency})
	defer b.sim.ClearFault()
	for round := range b.rounds {
		b.say("%s: round %d of %d", storage, round+1, b.rounds)
		for _, readers := range result.Readers {
			for _, w := range ways {
				key := cellKey{w.name, readers}
				if result.cells[key] == nil {
					result.cells[key] = &cell{}
				}
				b.measure(ctx, s, w, readers, result.cells[key])
			}
		}
		s.write(ctx, "sys/leases/revoke-prefix/apic/token/leased", map[string]any{"sync": true})
		slices.Reverse(ways)
	}
	return result
}

// setUpWays makes what the ways read, and has them all answer the same.
func (b *bench) setUpWays(ctx context.Context, s *server, result *comparison) []way {
	s.mount(ctx, engineProgram, "apic")
	for name, settings := range map[string]map[string]any{"shared": {}, "dedicated": {"cache": false}, "leased": {"lease": true}} {
		s.write(ctx, "apic/config/"+name, b.settings(settings))
	}
	s.mount(ctx, floorProgram, "floor")
	data := s.teachFloor(ctx)
	result.AnswerSize = len(must(json.Marshal(data)))
	check(s.Sys().MountWithContext(ctx, "kv", &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}))
	s.write(ctx, "kv/shared", data)
	read := func(path string) vegeta.Target { return s.target(http.MethodGet, path, nil) }
	return []way{
		{wayFloor, "floor", read("floor/token/shared"), 0},
		{wayShared, "apic", read("apic/token/shared"), 0},
		{wayKV, "", read("kv/shared"), 0},
		{wayDedicated, "apic", read("apic/token/dedicated"), 0},
		{wayLeased, "apic", read("apic/token/leased"), leasedReads},
		{wayService, "", vegeta.Target{
			Method: http.MethodPost, URL: b.service.URL() + "/apikey?apikey=" + b.key,
			Header: http.Header{"Accept": {"application/json"}, "Content-Type": {"application/x-www-form-urlencoded"}},
		}, 0},
	}
}

// teachFloor has the floor plugin answer what the engine answers.
func (s *server) teachFloor(ctx context.Context) map[string]any {
	data := must(s.Logical().ReadWithContext(ctx, "apic/token/shared")).Data
	s.write(ctx, "floor/token/shared", map[string]any{"answer": data})
	return data
}

func (b *bench) measure(ctx context.Context, s *server, w way, readers int, into *cell) {
	next := func() vegeta.Target { return w.target }
	warm := load{workers: readers, duration: warmUp, next: next}
	if w.reads > 0 {
		warm.requests = readers
	}
	warm.run(ctx, s.http)
	processes := []process{{Proc: must(procfs.NewProc(s.command.Process.Pid))}}
	if w.mount != "" {
		processes = append(processes, s.plugin(w.mount))
	}
	var before []time.Duration
	for _, p := range processes {
		before = append(before, p.cpu())
	}
	into.add(load{workers: readers, duration: b.duration, requests: w.reads, next: next}.run(ctx, s.http))
	if w.name != wayService {
		into.serverCPU += processes[0].cpu() - before[0]
	}
	if w.mount != "" {
		into.pluginCPU += processes[1].cpu() - before[1]
	}
}
