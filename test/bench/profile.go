// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// profileTail is how long a load goes on when its profiles should be done.
const profileTail = time.Second

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
	defer s.stop()
	all := b.profile(ctx, s, b.out, b.duration)
	b.say("profile: go tool pprof -http=localhost: %s/plugin-cpu-1.pb.gz shows one", b.out)
	fmt.Print(render("profiles", all))
}

// profile reads a shared token of a plugin that is built for it.
func (b *bench) profile(ctx context.Context, s *server, dir string, duration time.Duration) (all []profile) {
	s.mount(ctx, profiledProgram, "profiled")
	s.write(ctx, "profiled/config/shared", b.settings(nil))
	for _, readers := range []int{1, maxConcurrency} {
		b.say("profile: %s", ofReaders(readers))
		all = append(all, s.profileLoad(ctx, readers, dir, duration.Truncate(time.Second))...)
	}
	return all
}

// profileLoad takes all profiles at once while readers read.
func (s *server) profileLoad(ctx context.Context, readers int, dir string, duration time.Duration) []profile {
	plugin := s.plugin("profiled")
	group, during := errgroup.WithContext(ctx)
	var taken sample
	group.Go(func() error {
		return attempt(func() {
			path := func() string { return "profiled/token/shared" }
			taken = s.read(during, load{workers: readers, duration: duration + profileTail}, path)
		})
	})
	seconds := fmt.Sprint(duration.Seconds())
	contents := make([][]byte, 4)
	for i, get := range []func() []byte{
		func() []byte { return plugin.get(during, "cpu?seconds="+seconds) },
		func() []byte { return plugin.get(during, "allocs?seconds="+seconds) },
		// Vault gives its own to root.
		func() []byte { return s.raw(during, "sys/pprof/profile", seconds) },
		func() []byte { return s.raw(during, "sys/pprof/allocs", seconds) },
	} {
		group.Go(func() error { return attempt(func() { contents[i] = get() }) })
	}
	check(group.Wait())
	reads := taken.Throughput * duration.Seconds()
	var all []profile
	for i, name := range []string{"plugin", "Vault"} {
		for j, kind := range []string{"cpu", "allocs"} {
			file := fmt.Sprintf("%s-%s-%d.pb.gz", strings.ToLower(name), kind, readers)
			check(os.WriteFile(filepath.Join(dir, file), contents[2*i+j], 0o644))
		}
		all = append(all, profile{name, readers, byPart(contents[2*i], "cpu", 1000*reads), byPart(contents[2*i+1], "alloc_space", 1024*reads)})
	}
	return all
}

// raw reads what Vault does not wrap in JSON.
func (s *server) raw(ctx context.Context, path, seconds string) []byte {
	response := must(s.Logical().ReadRawWithDataWithContext(ctx, path, map[string][]string{"seconds": {seconds}}))
	defer response.Body.Close()
	return must(io.ReadAll(response.Body))
}
