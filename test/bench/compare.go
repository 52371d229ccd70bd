// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

const (
	// serviceLatency is what the simulated token service takes for an exchange
	// while dedicated tokens are measured.
	serviceLatency = 20 * time.Millisecond

	// leasedReads bounds how many leases a round piles up.
	leasedReads = 1000

	warmUp = 200 * time.Millisecond
)

var concurrencies = []int{1, maxConcurrency}

// way is one of the ways to get an answer that are compared.
type way struct {
	name    string
	path    string
	program string // whose CPU time is counted; none for what runs in Vault itself
	reads   int64  // the most that a round makes; 0 is any number
	before  func(context.Context) error
	after   func(context.Context) error
}

const (
	wayShared    = "shared token"
	wayFloor     = "floor plugin"
	wayKV        = "kv v1"
	wayDedicated = "dedicated token"
	wayLeased    = "shared token, leased"
)

// cell is what was measured of one way at one concurrency, by round.
type cell struct {
	samples              []sample
	pluginCPU, serverCPU time.Duration // of all rounds
	hasPlugin            bool
}

func (c *cell) rates() []float64 {
	return c.each(sample.rate)
}

func (c *cell) quantiles(q float64) []float64 {
	return c.each(func(s sample) float64 { return s.quantile(q).Seconds() })
}

func (c *cell) each(value func(sample) float64) []float64 {
	values := make([]float64, len(c.samples))
	for i, s := range c.samples {
		values[i] = value(s)
	}
	return values
}

func (c *cell) perRead(total time.Duration) time.Duration {
	reads := 0
	for _, s := range c.samples {
		reads += s.reads
	}
	return total / time.Duration(max(reads, 1))
}

// comparison is what was measured on one server.
type comparison struct {
	storage    string
	answerSize int
	ways       []string
	cells      map[cellKey]*cell
	exchange   []float64 // seconds that the service takes without Vault, by round
}

type cellKey struct {
	way     string
	readers int
}

// compare measures all ways in turn, round after round, so that whatever else the
// machine does falls on all of them. Every second round goes backwards.
func (b *bench) compare(ctx context.Context, s *server, storage string) (*comparison, error) {
	result := &comparison{storage: storage, cells: make(map[cellKey]*cell)}
	ways, err := b.setUpWays(ctx, s, result)
	if err != nil {
		return nil, err
	}
	for _, w := range ways {
		result.ways = append(result.ways, w.name)
		for _, readers := range concurrencies {
			result.cells[cellKey{w.name, readers}] = &cell{}
		}
	}
	for round := range b.rounds {
		b.say("%s: round %d of %d", storage, round+1, b.rounds)
		for _, readers := range concurrencies {
			for _, w := range ways {
				if err := b.measure(ctx, s, w, readers, result.cells[cellKey{w.name, readers}]); err != nil {
					return nil, fmt.Errorf("%s, %s, %d readers: %w", storage, w.name, readers, err)
				}
			}
		}
		exchange, err := b.exchangeTime(ctx)
		if err != nil {
			return nil, err
		}
		result.exchange = append(result.exchange, exchange)
		slices.Reverse(ways)
	}
	return result, nil
}

// setUpWays makes what the ways read, and has them all answer the same.
func (b *bench) setUpWays(ctx context.Context, s *server, result *comparison) ([]way, error) {
	if err := s.mountPlugin(ctx, enginePlugin, "apic"); err != nil {
		return nil, err
	}
	for name, settings := range map[string]map[string]any{"shared": {}, "dedicated": {"cache": false}, "leased": {"lease": true}} {
		if err := b.writeConfig(ctx, s, "apic", name, settings); err != nil {
			return nil, err
		}
	}
	data, err := s.readData(ctx, "apic/token/shared")
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	result.answerSize = len(encoded)
	if err := s.mountPlugin(ctx, floorPlugin, "floor"); err != nil {
		return nil, err
	}
	if err := s.teachFloor(ctx); err != nil {
		return nil, err
	}
	kv := map[string]any{"type": "kv", "options": map[string]string{"version": "1"}}
	if err := s.call(ctx, http.MethodPost, "sys/mounts/kv", kv, nil); err != nil {
		return nil, err
	}
	if err := s.call(ctx, http.MethodPut, "kv/shared", data, nil); err != nil {
		return nil, err
	}
	return []way{
		{name: wayFloor, path: "floor/token/shared", program: floorPlugin},
		{name: wayShared, path: "apic/token/shared", program: enginePlugin},
		{name: wayKV, path: "kv/shared"},
		{
			name: wayDedicated, path: "apic/token/dedicated", program: enginePlugin,
			before: func(context.Context) error { b.sim.Inject(apicsim.Fault{Latency: serviceLatency}); return nil },
			after:  func(context.Context) error { b.sim.ClearFault(); return nil },
		},
		{
			name: wayLeased, path: "apic/token/leased", program: enginePlugin, reads: leasedReads,
			after: func(ctx context.Context) error {
				return s.call(ctx, http.MethodPut, "sys/leases/revoke-prefix/apic/token/leased", map[string]any{"sync": true}, nil)
			},
		},
	}, nil
}

// teachFloor has the floor plugin answer what the engine answers.
func (s *server) teachFloor(ctx context.Context) error {
	data, err := s.readData(ctx, "apic/token/shared")
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPut, "floor/token/shared", map[string]any{"answer": data}, nil)
}

func (s *server) readData(ctx context.Context, path string) (map[string]any, error) {
	var answer struct {
		Data map[string]any `json:"data"`
	}
	err := s.call(ctx, http.MethodGet, path, nil, &answer)
	return answer.Data, err
}

func (b *bench) measure(ctx context.Context, s *server, w way, readers int, into *cell) error {
	if w.before != nil {
		if err := w.before(ctx); err != nil {
			return err
		}
	}
	warm := bound{duration: warmUp}
	if w.reads > 0 {
		warm.reads = int64(readers)
	}
	if _, err := s.load(ctx, readers, warm, onePath(w.path)); err != nil {
		return err
	}
	if err := s.measure(ctx, w, readers, b.duration, into); err != nil {
		return err
	}
	if w.after != nil {
		return w.after(ctx)
	}
	return nil
}

func (s *server) measure(ctx context.Context, w way, readers int, duration time.Duration, into *cell) error {
	pids := []int{s.command.Process.Pid}
	if w.program != "" {
		pid, err := s.plugin(w.program)
		if err != nil {
			return err
		}
		pids = append(pids, pid)
		into.hasPlugin = true
	}
	before, err := cpuTimes(pids)
	if err != nil {
		return err
	}
	taken, err := s.load(ctx, readers, bound{duration: duration, reads: w.reads}, onePath(w.path))
	if err != nil {
		return err
	}
	after, err := cpuTimes(pids)
	if err != nil {
		return err
	}
	into.samples = append(into.samples, taken)
	into.serverCPU += after[0] - before[0]
	if into.hasPlugin {
		into.pluginCPU += after[1] - before[1]
	}
	return nil
}

// exchangeTime is the median time of exchanges with the simulated service that
// this program makes itself, for comparison with what Vault and the engine add.
func (b *bench) exchangeTime(ctx context.Context) (float64, error) {
	b.sim.Inject(apicsim.Fault{Latency: serviceLatency})
	defer b.sim.ClearFault()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	times := make([]float64, 50)
	for i := range times {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.service.URL()+"/apikey?apikey="+b.key, nil)
		if err != nil {
			return 0, err
		}
		request.Header.Set("Accept", "application/json")
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		begin := time.Now()
		response, err := transport.RoundTrip(request)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("the simulated service answers %s", response.Status)
		}
		if err != nil {
			return 0, err
		}
		times[i] = time.Since(begin).Seconds()
	}
	return median(times), nil
}

// writeConfig writes a config for the simulated service without trying its key.
func (b *bench) writeConfig(ctx context.Context, s *server, mount, name string, settings map[string]any) error {
	config := map[string]any{
		"api_key": b.key, "token_url": b.service.URL() + "/apikey", "api_url": b.service.URL(),
		"max_retries": 0, "verify": false,
	}
	for field, value := range settings {
		config[field] = value
	}
	return s.call(ctx, http.MethodPut, mount+"/config/"+name, config, nil)
}
