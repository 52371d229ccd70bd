// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/procfs"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

const (
	warmUp = 100 * time.Millisecond
	// earlyReads are made before memory is measured for the first time.
	earlyReads = 1_000
	// manyReads is what memory must not grow over.
	manyReads = 100_000
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
	name           string
	target         vegeta.Target
	reads          int      // the most that a round makes, for leases pile up; 0 is any number
	server, plugin *process // those whose CPU time is counted
}

// comparison is what was measured on one server.
type comparison struct {
	Storage    string
	AnswerSize int
	Ways       []string
	Cells      map[int]map[string]rounds // by readers and way
}

// runComparison measures all but what the number of configs changes: the ways with each storage,
// and the rest with the storage that it is about.
func (b *bench) runComparison(ctx context.Context) {
	chart := strings.TrimSuffix(b.out, filepath.Ext(b.out)) + ".svg"
	r := &report{Facts: b.facts(ctx), Image: filepath.Base(chart)}
	for _, storage := range []string{"inmem", "raft"} {
		ctx, stop := context.WithCancel(ctx)
		s := b.startServer(ctx, storage)
		r.Compared = append(r.Compared, b.compare(ctx, s, storage))
		if storage == "raft" {
			r.Endured = []endurance{s.endure(ctx, wayShared, "apic"), s.endure(ctx, wayFloor, "floor")}
		} else {
			r.Profiled = b.profile(ctx, s, b.dir, time.Duration(b.rounds)*b.duration)
		}
		stop()
		b.servers.Wait()
	}
	r.drawChart(chart)
	b.writeDocument("compare", r)
}

// compare measures all ways in turn, round after round, so that whatever else the
// machine does falls on all of them. Every second round goes backwards.
func (b *bench) compare(ctx context.Context, s *server, storage string) *comparison {
	result := &comparison{Storage: storage, Cells: map[int]map[string]rounds{1: {}, maxConcurrency: {}}}
	ways := b.setUpWays(ctx, s, result)
	for _, w := range ways {
		result.Ways = append(result.Ways, w.name)
	}
	b.sim.Inject(apicsim.Fault{Latency: 20 * time.Millisecond}) // What an exchange takes.
	defer b.sim.ClearFault()
	for round := range b.rounds {
		log.Printf("%s: round %d of %d", storage, round+1, b.rounds)
		for _, readers := range []int{1, maxConcurrency} {
			for _, w := range ways {
				result.Cells[readers][w.name] = append(result.Cells[readers][w.name], b.measure(ctx, s, w, readers))
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
	vault := &process{Proc: must(procfs.NewProc(s.command.Process.Pid))}
	engine, floor := s.plugin("apic"), s.plugin("floor")
	return []way{
		{wayFloor, read("floor/token/shared"), 0, vault, floor},
		{wayShared, read("apic/token/shared"), 0, vault, engine},
		{wayKV, read("kv/shared"), 0, vault, nil},
		{wayDedicated, read("apic/token/dedicated"), 0, vault, engine},
		{wayLeased, read("apic/token/leased"), 1000, vault, engine},
		{wayService, vegeta.Target{
			Method: http.MethodPost, URL: b.service.URL() + "/apikey?apikey=" + b.key,
			Header: http.Header{"Accept": {"application/json"}, "Content-Type": {"application/x-www-form-urlencoded"}},
		}, 0, nil, nil},
	}
}

// teachFloor has the floor plugin answer what the engine answers.
func (s *server) teachFloor(ctx context.Context) map[string]any {
	data := must(s.Logical().ReadWithContext(ctx, "apic/token/shared")).Data
	s.write(ctx, "floor/token/shared", map[string]any{"answer": data})
	return data
}

func (b *bench) measure(ctx context.Context, s *server, w way, readers int) sample {
	l := load{workers: readers, duration: warmUp, requests: min(w.reads, readers), next: func() vegeta.Target { return w.target }}
	l.run(ctx, s.http)
	l.duration, l.requests = b.duration, w.reads
	plugin, server := w.plugin.cpu(), w.server.cpu()
	taken := l.run(ctx, s.http)
	taken.pluginCPU = (w.plugin.cpu() - plugin) / float64(taken.Requests)
	taken.serverCPU = (w.server.cpu() - server) / float64(taken.Requests)
	return taken
}

// endurance is the resident set of a plugin's process: after a thousand reads, the most of it when
// many more were made, and when these are over.
type endurance struct {
	Way               string
	Early, Busy, Idle int
}

// endure measures whether reads alone make a plugin grow, on a fresh process.
func (s *server) endure(ctx context.Context, way, mount string) endurance {
	log.Printf("%d reads of one %s", manyReads, way)
	must(s.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Plugin: mount}))
	s.teachFloor(ctx)
	path := func() string { return mount + "/token/shared" }
	s.read(ctx, load{workers: maxConcurrency, requests: earlyReads}, path)
	plugin := s.plugin(mount)
	e := endurance{Way: way, Early: must(plugin.Stat()).ResidentMemory()}
	s.read(ctx, load{workers: maxConcurrency, requests: manyReads - earlyReads}, path)
	e.Busy = int(must(plugin.NewStatus()).VmHWM)
	time.Sleep(10 * time.Second) // Go's runtime gives memory back meanwhile.
	e.Idle = must(plugin.Stat()).ResidentMemory()
	return e
}
