// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pprof "github.com/google/pprof/profile"
)

const (
	partScheduler = "Go's scheduler" // a stack that has nothing but the runtime's functions
	partOther     = "other"
	partAll       = "**all**"
)

// part is what a read goes through, as told by the beginnings of the names of a stack's functions.
type part struct {
	Name     string
	packages []string
}

// parts are looked through in order, for each function of a stack from the leaf on. So
// what encoding/json does for the framework counts as the framework's.
func parts() []part {
	return []part{
		{"garbage collection", []string{"runtime.gcBgMarkWorker", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcAssistAlloc", "runtime.gcStart"}},
		{"engine", []string{"github.com/apic-vault/vault-plugin-secrets-apic", "main."}},
		{"Vault's SDK", []string{"github.com/hashicorp/vault/sdk/"}},
		{"gRPC and TLS", []string{"google.golang.org/", "golang.org/x/net/http2", "crypto/tls.", "github.com/hashicorp/go-plugin"}},
		{"Vault", []string{"github.com/hashicorp/"}},
		{"HTTP server", []string{"net/http."}},
		{partScheduler, nil},
		{partOther, nil},
		{partAll, nil},
	}
}

// profile is what a read of a shared token takes of a process, by part.
type profile struct {
	Process string
	Readers int
	CPU     map[string]float64 // µs for each read
	Memory  map[string]float64 // KiB allocated for each read
}

// runProfile profiles the plugin and Vault under load, and leaves the profiles for go
// tool pprof.
func (b *bench) runProfile(ctx context.Context) {
	check(os.MkdirAll(b.out, 0o755))
	s := b.startServer(ctx, "inmem")
	all := b.profile(ctx, s, b.out, b.duration)
	log.Printf("profile: go tool pprof -http=localhost: %s/plugin-cpu-1.pb.gz shows one", b.out)
	fmt.Print(render("profiles", all))
}

// profile reads a shared token of a plugin that is built for it.
func (b *bench) profile(ctx context.Context, s *server, dir string, duration time.Duration) []profile {
	s.mount(ctx, profiledProgram, "profiled")
	s.write(ctx, "profiled/config/shared", b.settings(nil))
	duration = duration.Truncate(time.Second)
	return append(s.profileLoad(ctx, 1, dir, duration), s.profileLoad(ctx, maxConcurrency, dir, duration)...)
}

// profileLoad takes all profiles at once while readers read, who go on when these should be done.
func (s *server) profileLoad(ctx context.Context, readers int, dir string, duration time.Duration) []profile {
	log.Printf("profile: %s", ofReaders(readers))
	plugin := s.plugin("profiled")
	seconds := fmt.Sprint(duration.Seconds())
	query := map[string][]string{"seconds": {seconds}}
	var taken sample
	var pluginCPU, pluginAllocs, vaultCPU, vaultAllocs []byte
	together(ctx,
		func(ctx context.Context) {
			path := func() string { return "profiled/token/shared" }
			taken = s.read(ctx, load{workers: readers, duration: duration + time.Second}, path)
		},
		func(context.Context) { pluginCPU = plugin.get("cpu?seconds=" + seconds) },
		func(context.Context) { pluginAllocs = plugin.get("allocs?seconds=" + seconds) },
		// Vault gives its own to root.
		func(ctx context.Context) { vaultCPU = s.raw(ctx, "sys/pprof/profile", query) },
		func(ctx context.Context) { vaultAllocs = s.raw(ctx, "sys/pprof/allocs", query) },
	)
	for name, content := range map[string][]byte{
		"plugin-cpu": pluginCPU, "plugin-allocs": pluginAllocs, "vault-cpu": vaultCPU, "vault-allocs": vaultAllocs,
	} {
		check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.pb.gz", name, readers)), content, 0o644))
	}
	reads := taken.Throughput * duration.Seconds()
	return []profile{
		{"plugin", readers, byPart(pluginCPU, "cpu", 1000*reads), byPart(pluginAllocs, "alloc_space", 1024*reads)},
		{"Vault", readers, byPart(vaultCPU, "cpu", 1000*reads), byPart(vaultAllocs, "alloc_space", 1024*reads)},
	}
}

// byPart adds up one of the values of a profile, in a unit, by what its stacks are part of.
func byPart(content []byte, value string, unit float64) map[string]float64 {
	parsed := must(pprof.ParseData(content))
	index := must(parsed.SampleIndexByName(value))
	totals := make(map[string]float64)
	for _, s := range parsed.Sample {
		var stack []string
		for _, location := range s.Location {
			for _, line := range location.Line {
				stack = append(stack, line.Function.Name)
			}
		}
		amount := float64(s.Value[index]) / unit
		totals[partOf(stack)] += amount
		totals[partAll] += amount
	}
	return totals
}

// partOf is the part that a stack counts to.
func partOf(stack []string) string {
	rest := partScheduler
	for _, function := range stack {
		begins := func(with string) bool { return strings.HasPrefix(function, with) }
		for _, p := range parts() {
			if slices.ContainsFunc(p.packages, begins) {
				return p.Name
			}
		}
		if !begins("runtime.") && !begins("internal/runtime/") {
			rest = partOther
		}
	}
	return rest
}
