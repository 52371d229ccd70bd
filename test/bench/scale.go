// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

const (
	// inBackground reads every config once after a restart, so that the schedule of rotations
	// knows them, and readAll is what it does when late writes of the process before are over.
	inBackground = "rotations).readInBackground"
	readAll      = "rotations).readAll"
)

// scaled is a mount with a number of configs, and what was measured of it. Each has a plugin
// process of its own, so that memory can be told apart.
type scaled struct {
	Configs      int
	Writing      time.Duration // of all configs
	Unused, Used state         // before and after every config was read
	rounds
	After usage // the rounds
	// First are the seconds until the first token after a restart. Before the first of these, all
	// configs were in use.
	First []float64

	// Of a restart: until all configs had been read, how long they were read for that, and
	// what readers of one config got meanwhile and afterwards.
	Known, Reading    time.Duration
	Meanwhile, Beyond rounds // one of each
}

// state is a plugin's memory, and how long LIST and the metrics take, in seconds.
type state struct {
	usage
	Listing, Scraping []float64
	ScrapeSize        int
	Scraped           int // resident after the metrics were read
}

func (m *scaled) mount() string      { return fmt.Sprintf("apic-%d", m.Configs) }
func (m *scaled) token(i int) string { return fmt.Sprintf("%s/token/c%06d", m.mount(), i) }
func (m *scaled) anyToken() string   { return m.token(rand.IntN(m.Configs)) }
func (m *scaled) oneToken() string   { return m.token(m.Configs / 2) }

// Each is for each config what they all added to a number of bytes.
func (m *scaled) Each(before, after int) int { return (after - before) / m.Configs }

// runScale measures what a number of configs changes.
func (b *bench) runScale(ctx context.Context) {
	r := scaleReport{Facts: b.facts(ctx)}
	s := b.startServer(ctx, "raft")
	for _, configs := range slices.Compact([]int{1, min(1_000, b.configs), b.configs}) {
		m := &scaled{Configs: configs}
		r.Mounts = append(r.Mounts, m)
		b.fill(ctx, s, m)
	}
	for round := range b.rounds {
		log.Printf("scale: round %d of %d", round+1, b.rounds)
		for _, m := range r.Mounts {
			s.read(ctx, load{workers: maxConcurrency, duration: warmUp}, m.anyToken)
			m.rounds = append(m.rounds, s.read(ctx, load{workers: maxConcurrency, duration: b.duration}, m.anyToken))
		}
	}
	for _, m := range r.Mounts {
		m.After = s.plugin(m.mount()).usage(false)
	}
	for range b.rounds {
		for _, m := range r.Mounts {
			m.First = append(m.First, s.restart(ctx, m).Seconds())
		}
	}
	b.writeDocument("scale", r)
}

// fill mounts a plugin, writes its configs, and measures it before and after each is in use.
func (b *bench) fill(ctx context.Context, s *server, m *scaled) {
	s.mount(ctx, profiledProgram, m.mount())
	log.Printf("scale: writing %d configs", m.Configs)
	begin := time.Now()
	b.writeConfigs(ctx, s, m.Configs, m.mount(), nil)
	m.Writing = time.Since(begin)
	log.Printf("scale: %d were written in %s; restarting and using them", m.Configs, m.Writing.Round(time.Second))
	// A fresh process, whose memory does not hold what writing left behind.
	b.watchRestart(ctx, s, m)
	m.Unused = b.look(ctx, s, m)
	s.read(ctx, load{workers: maxConcurrency, requests: m.Configs}, eachOf(m.token))
	m.Used = b.look(ctx, s, m)
}

// writeConfigs writes so many configs. Each has a key of its own, as configs have in practice, and
// that an identity of its own, since IAM lets one have 20.
func (b *bench) writeConfigs(ctx context.Context, s *server, n int, mount string, more map[string]any) {
	next := eachOf(func(i int) vegeta.Target {
		settings, key := b.settings(more), apicsim.NewKeyValue()
		settings["api_key"] = key
		b.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: fmt.Sprintf("iam-ServiceId-%d", i)})
		return s.target(http.MethodPut, fmt.Sprintf("%s/config/c%06d", mount, i), settings)
	})
	load{workers: 16, requests: n, next: next}.run(ctx, s.http)
}

// eachOf counts for those who may ask at the same time.
func eachOf[T any](of func(i int) T) func() T {
	var next atomic.Int64
	return func() T { return of(int(next.Add(1) - 1)) }
}

// restart takes until the first token.
func (s *server) restart(ctx context.Context, m *scaled) time.Duration {
	begin := time.Now()
	must(s.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Plugin: m.mount()}))
	s.read(ctx, load{workers: 1, requests: 1}, m.oneToken)
	return time.Since(begin)
}

// watchRestart measures what readers get after a restart while the plugin reads its configs.
func (b *bench) watchRestart(ctx context.Context, s *server, m *scaled) {
	begin := time.Now()
	s.restart(ctx, m)
	plugin := s.plugin(m.mount())
	if !plugin.hasRoutine(inBackground) {
		check(fmt.Errorf("the plugin has no goroutine in %s, which it has for half a minute after a restart", inBackground))
	}
	for !plugin.hasRoutine(readAll) && plugin.hasRoutine(inBackground) {
		time.Sleep(20 * time.Millisecond)
	}
	waited := time.Since(begin)
	var over atomic.Bool
	together(ctx,
		func(ctx context.Context) {
			defer over.Store(true)
			for plugin.hasRoutine(inBackground) {
				time.Sleep(100 * time.Millisecond)
			}
		},
		func(ctx context.Context) {
			m.Meanwhile = rounds{s.read(ctx, load{workers: maxConcurrency, until: over.Load}, m.oneToken)}
		},
	)
	m.Known = time.Since(begin)
	m.Reading = m.Known - waited
	m.Beyond = rounds{s.read(ctx, load{workers: maxConcurrency, duration: 2 * b.duration}, m.oneToken)}
}

// look measures a mount as it is.
func (b *bench) look(ctx context.Context, s *server, m *scaled) (now state) {
	plugin := s.plugin(m.mount())
	now.usage = plugin.usage(true)
	timed := func(do func()) (seconds []float64) {
		for range b.rounds {
			begin := time.Now()
			do()
			seconds = append(seconds, time.Since(begin).Seconds())
		}
		return seconds
	}
	var names []any
	now.Listing = timed(func() { names, _ = must(s.Logical().ListWithContext(ctx, m.mount()+"/config")).Data["keys"].([]any) })
	if len(names) != m.Configs {
		check(fmt.Errorf("%d of %d configs are listed", len(names), m.Configs))
	}
	now.Scraping = timed(func() { now.ScrapeSize = len(s.raw(ctx, m.mount()+"/metrics", nil)) })
	now.Scraped = must(plugin.Stat()).ResidentMemory()
	return now
}
