// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// maxConcurrency is the most readers that there are at a time.
const maxConcurrency = 32

// load is requests by so many workers, who wait for each response before they ask again. What
// bounds it is a time, a number or a condition; a zero bounds nothing.
type load struct {
	workers              int
	duration             time.Duration
	requests             int
	until                func() bool
	vegeta.ConstantPacer // the rate of all workers; zero is as fast as responses come

	next func() vegeta.Target
	// judge may make a response a failure, by its Error. mayFail has the load go on after one.
	judge   func(*vegeta.Result)
	mayFail bool
}

// Pace makes a load its own vegeta.Pacer.
func (l load) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if l.requests > 0 && hits >= uint64(l.requests) || l.until != nil && l.until() {
		return 0, true
	}
	return l.ConstantPacer.Pace(elapsed, hits)
}

// sample is what a load measured. CPU times are for each read, in seconds.
type sample struct {
	vegeta.Metrics
	failed               int
	pluginCPU, serverCPU float64
}

// rounds are what the same load measured time after time. Each method gives one figure for each.
type rounds []sample

func (r rounds) each(figure func(sample) float64) (all []float64) {
	for _, s := range r {
		all = append(all, figure(s))
	}
	return all
}

// Rates are reads a second, and the others seconds.
func (r rounds) Rates() []float64 { return r.each(func(s sample) float64 { return s.Throughput }) }
func (r rounds) Latencies(quantile float64) []float64 {
	return r.each(func(s sample) float64 { return s.Metrics.Latencies.Quantile(quantile).Seconds() })
}
func (r rounds) PluginCPU() []float64 { return r.each(func(s sample) float64 { return s.pluginCPU }) }
func (r rounds) ServerCPU() []float64 { return r.each(func(s sample) float64 { return s.serverCPU }) }

// run makes the requests with a client that keeps its connections.
func (l load) run(ctx context.Context, client *http.Client) (taken sample) {
	attacker := vegeta.NewAttacker(vegeta.Client(client), vegeta.Workers(uint64(l.workers)), vegeta.MaxWorkers(uint64(l.workers)))
	defer context.AfterFunc(ctx, func() { attacker.Stop() })()
	targeter := func(t *vegeta.Target) error {
		*t = l.next()
		return nil
	}
	for result := range attacker.Attack(targeter, l, l.duration, "") {
		if l.judge != nil {
			l.judge(result)
		}
		if result.Error != "" {
			// Vault says why. The address may have a key, which is sent to the simulation.
			result.Error += " " + string(result.Body[:min(len(result.Body), 200)])
			taken.failed++
			if !l.mayFail {
				attacker.Stop()
			}
		}
		taken.Add(result)
	}
	taken.Close()
	check(ctx.Err())
	if taken.failed > 0 && !l.mayFail {
		check(errors.New("a request failed: " + taken.Errors[0]))
	}
	if taken.Requests == 0 && l.until == nil {
		check(errors.New("no request ended in time"))
	}
	return taken
}
