// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/aclements/go-moremath/stats"
	vegeta "github.com/tsenart/vegeta/v12/lib"
)

const (
	soakTokenTTL = 30 * time.Second
	// rotateEvery and patchEvery are the times between two writes of each kind, which go
	// round the configs half the way apart, so that they never meet.
	rotateEvery = 2 * time.Second
	patchEvery  = time.Second
	// leastSamples are what a trend is judged by: three in each third of three quarters.
	leastSamples = 12
)

// soak is what readers and writers on one mount met with.
type soak struct {
	reads, rotations, patches sample
	usages                    []usage
}

// runSoak soaks for a time. Its failure says that something grew or failed.
func (b *bench) runSoak(ctx context.Context) {
	s := b.startServer(ctx, "raft")
	s.mount(ctx, profiledProgram, "apic")
	b.sim.SetTokenTTL(soakTokenTTL)
	log.Printf("soak: writing %d configs", b.configs)
	// Replaced keys are deleted while the soak goes on.
	b.writeConfigs(ctx, s, b.configs, "apic", map[string]any{"iam_url": b.service.URL(), "rotation_grace_period": "10s"})
	log.Printf("soak: reading for %s", b.duration)
	k := b.soak(ctx, s)
	counts := b.sim.Counts()
	fmt.Printf("%s, %d configs, tokens of %s: %d reads, %d exchanges, %d rotations, %d patches, %d keys made and %d deleted\n\n",
		b.duration, b.configs, soakTokenTTL, k.reads.Requests, counts.Exchanges, k.rotations.Requests, k.patches.Requests, counts.KeysCreated, counts.KeysDeleted)
	check(k.judge(os.Stdout))
}

// soak has everything happen to the configs for the duration.
func (b *bench) soak(ctx context.Context, s *server) *soak {
	k := &soak{}
	path := func(kind string, i int) string { return fmt.Sprintf("apic/%s/c%06d", kind, i%b.configs) }
	keepUp := func(l load, rate vegeta.ConstantPacer, into *sample) func(context.Context) {
		l.ConstantPacer, l.duration, l.mayFail = rate, b.duration, true
		return func(ctx context.Context) { *into = l.run(ctx, s.http) }
	}
	read := load{workers: 16, judge: requireLiving, next: func() vegeta.Target {
		return s.target(http.MethodGet, path("token", rand.IntN(b.configs)), nil)
	}}
	rotate := load{workers: 1, next: eachOf(func(n int) vegeta.Target {
		return s.target(http.MethodPut, path("config", n)+"/rotate", nil)
	})}
	// A patch changes what makes the engine build a config's entry anew.
	patch := load{workers: 1, next: eachOf(func(n int) vegeta.Target {
		t := s.target(http.MethodPatch, path("config", n/int(rotateEvery/patchEvery)+b.configs/2), map[string]any{"request_timeout": fmt.Sprintf("%ds", 10+n%5)})
		t.Header.Set("Content-Type", "application/merge-patch+json")
		return t
	})}
	together(ctx,
		keepUp(read, vegeta.ConstantPacer{Freq: 400, Per: time.Second}, &k.reads),
		keepUp(rotate, vegeta.ConstantPacer{Freq: 1, Per: rotateEvery}, &k.rotations),
		keepUp(patch, vegeta.ConstantPacer{Freq: 1, Per: patchEvery}, &k.patches),
		func(ctx context.Context) {
			plugin := s.plugin("apic")
			for end := time.Now().Add(b.duration); time.Now().Before(end); time.Sleep(time.Second) {
				k.usages = append(k.usages, plugin.usage(false))
			}
		},
	)
	return k
}

// requireLiving makes a token that has ended a failure.
func requireLiving(r *vegeta.Result) {
	var told struct {
		Data struct {
			ExpiresAt time.Time `json:"expires_at"`
		}
	}
	_ = json.Unmarshal(r.Body, &told) // What cannot be read does not say so either.
	if r.Error == "" && !r.End().Before(told.Data.ExpiresAt) {
		r.Error, r.Code, r.Body = "the token is not said to live", 0, nil
	}
}

// trend is how one of the numbers of a usage went over a soak.
type trend struct {
	name string
	of   func(usage) int
	// unit is what it is told in. slack is by how many of them it may differ without being
	// said to grow, beside a tenth of itself.
	unit, slack float64
}

func trends() []trend {
	return []trend{
		{"memory (RSS), MiB", func(u usage) int { return u.Resident }, 1 << 20, 4},
		{"live heap, MiB", func(u usage) int { return u.LiveHeap }, 1 << 20, 1},
		{"goroutines", func(u usage) int { return u.Goroutines }, 1, 32},
		{"threads", func(u usage) int { return u.Threads }, 1, 4},
		{"file descriptors", func(u usage) int { return u.Files }, 1, 16},
	}
}

// judge prints how the number went, and says whether it grows. It compares the means of the first
// and of the last third: a mean tells waves from growth, which a median does not, for configs that
// are written together exchange their keys together at first, and one by one later.
func (t trend) judge(out io.Writer, samples []usage) bool {
	var values []float64
	for _, u := range samples {
		values = append(values, float64(t.of(u))/t.unit)
	}
	third := len(values) / 3
	early, late := stats.Mean(values[:third]), stats.Mean(values[len(values)-third:])
	least, most := stats.Bounds(values)
	grows, verdict := late > early+early/10+t.slack, "flat"
	if grows {
		verdict = "GROWING"
	}
	fmt.Fprintf(out, "%-17s %8.1f %8.1f %8.1f %8.1f  %s\n", t.name, early, late, least, most, verdict)
	return grows
}

// judge prints how the measures went, and fails if one grows or a request failed.
func (k *soak) judge(out io.Writer) error {
	if len(k.usages) < leastSamples {
		return fmt.Errorf("%d samples of the plugin's process are too few to judge by", len(k.usages))
	}
	fmt.Fprintf(out, "%-17s %8s %8s %8s %8s\n", "", "early", "late", "least", "most")
	growing, failed := 0, 0
	for _, t := range trends() {
		// In the first quarter configs come into use, and the heap finds its size.
		if t.judge(out, k.usages[len(k.usages)/4:]) {
			growing++
		}
	}
	for _, s := range []sample{k.reads, k.rotations, k.patches} {
		for _, text := range s.Errors {
			fmt.Fprintln(out, "FAILED:", text)
		}
		failed += s.failed
	}
	if growing > 0 || failed > 0 {
		return fmt.Errorf("soak: %d of %d measures grow, %d requests failed", growing, len(trends()), failed)
	}
	fmt.Fprintln(out, "\nsoak: flat, and no request failed")
	return nil
}
