// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
	"golang.org/x/sync/errgroup"
)

const (
	soakReaders  = 16
	soakRate     = 400 // reads a second
	soakTokenTTL = 30 * time.Second
	// soakGrace has replaced keys deleted while the soak goes on.
	soakGrace = "10s"
	// rotateEvery and patchEvery are the times between two writes of each kind, which go
	// round the configs half the way apart, so that they never meet.
	rotateEvery = 2 * time.Second
	patchEvery  = time.Second
	// soakSamples are taken of a soak at most, and not more often than leastInterval.
	soakSamples   = 90
	leastInterval = time.Second
)

// soak is what readers and writers on one mount met with.
type soak struct {
	reads, rotations, patches sample
	usages                    []usage
}

// runSoak soaks for a time. Its failure says that something grew or failed.
func (b *bench) runSoak(ctx context.Context) {
	if b.configs < 2 || b.duration < leastSamples*leastInterval {
		check(fmt.Errorf("-configs must be 2 or more, -duration %s or more", leastSamples*leastInterval))
	}
	s := b.startServer(ctx, "raft")
	defer s.stop()
	s.mount(ctx, profiledProgram, "apic")
	b.sim.SetTokenTTL(soakTokenTTL)
	b.say("soak: writing %d configs", b.configs)
	b.writeConfigs(ctx, s, b.configs, "apic", b.rotatedSettings)
	b.say("soak: reading for %s", b.duration)
	k := b.soak(ctx, s)
	counts := b.sim.Counts()
	fmt.Printf("%s, %d configs, tokens of %s: %d reads, %d exchanges, %d rotations, %d patches, %d keys made and %d deleted\n\n",
		b.duration, b.configs, soakTokenTTL, k.reads.Requests, counts.Exchanges, k.rotations.Requests, k.patches.Requests, counts.KeysCreated, counts.KeysDeleted)
	check(k.judge(os.Stdout))
}

// rotatedSettings are a config's whose rotations delete the key before.
func (b *bench) rotatedSettings(i int) map[string]any {
	settings := b.ownKey(i)
	settings["iam_url"], settings["rotation_grace_period"] = b.service.URL(), soakGrace
	return settings
}

// soak has everything happen to the configs for the duration.
func (b *bench) soak(ctx context.Context, s *server) *soak {
	k := &soak{}
	path := func(kind string, i int) string { return fmt.Sprintf("apic/%s/c%06d", kind, i%b.configs) }
	group, during := errgroup.WithContext(ctx)
	start := func(into *sample, l load, every time.Duration, requests int) {
		l.rate, l.duration, l.mayFail = vegeta.Rate{Freq: requests, Per: every}, b.duration, true
		group.Go(func() error { return attempt(func() { *into = l.run(during, s.http) }) })
	}
	start(&k.reads, load{workers: soakReaders, judge: requireLiving, next: func() vegeta.Target {
		return s.target(http.MethodGet, path("token", rand.IntN(b.configs)), nil)
	}}, time.Second, soakRate)
	start(&k.rotations, load{workers: 1, next: eachOf(func(n int) vegeta.Target {
		return s.target(http.MethodPut, path("config", n)+"/rotate", nil)
	})}, rotateEvery, 1)
	// A patch changes what makes the engine build a config's entry anew.
	start(&k.patches, load{workers: 1, next: eachOf(func(n int) vegeta.Target {
		t := s.target(http.MethodPatch, path("config", n/int(rotateEvery/patchEvery)+b.configs/2), map[string]any{"request_timeout": fmt.Sprintf("%ds", 10+n%5)})
		t.Header.Set("Content-Type", "application/merge-patch+json")
		return t
	})}, patchEvery, 1)
	plugin := s.plugin("apic")
	group.Go(func() error {
		return attempt(func() {
			interval := max(b.duration/soakSamples, leastInterval)
			for end := time.Now().Add(b.duration); time.Now().Before(end); check(pause(during, interval)) {
				k.usages = append(k.usages, plugin.usage(during, false))
			}
		})
	})
	check(group.Wait())
	return k
}

// requireLiving makes a token that has ended a failure.
func requireLiving(r *vegeta.Result) {
	if r.Error != "" {
		return
	}
	var told struct {
		Data struct {
			ExpiresAt time.Time `json:"expires_at"`
		} `json:"data"`
	}
	if err := json.Unmarshal(r.Body, &told); err != nil || !r.End().Before(told.Data.ExpiresAt) {
		r.Error, r.Code, r.Body = "the token is not said to live", 0, nil
	}
}

// judge prints how the measures went, and fails if one grows or a request failed.
func (k *soak) judge(out io.Writer) error {
	if len(k.usages) < leastSamples {
		return fmt.Errorf("%d samples of the plugin's process are too few to judge by", len(k.usages))
	}
	all := trends(k.usages)
	writeTrends(out, all)
	failed := 0
	for _, s := range []sample{k.reads, k.rotations, k.patches} {
		for _, text := range s.Errors {
			fmt.Fprintln(out, "FAILED:", text)
		}
		for code, count := range s.StatusCodes {
			if !slices.Contains([]string{"200", "204"}, code) {
				failed += count
			}
		}
	}
	growing := len(slices.DeleteFunc(slices.Clone(all), func(t trend) bool { return !t.grows() }))
	if growing > 0 || failed > 0 {
		return fmt.Errorf("soak: %d of %d measures grow, %d requests failed", growing, len(all), failed)
	}
	fmt.Fprintln(out, "\nsoak: flat, and no request failed")
	return nil
}
