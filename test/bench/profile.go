// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// profileTail is how long a load goes on when its profiles should be done.
const profileTail = time.Second

// profileResult is what a read of a shared token takes of a process, by part.
type profileResult struct {
	process string
	readers int
	cpu     map[string]float64 // µs for each read
	bytes   map[string]float64 // allocated for each read
}

// runProfile profiles the plugin and Vault under load, and leaves the profiles for go
// tool pprof.
func runProfile(ctx context.Context, args []string, out, progress io.Writer) error {
	b := &bench{key: apicsim.NewKeyValue(), progress: progress}
	var dir, vault string
	flags := flag.NewFlagSet("bench profile", flag.ContinueOnError)
	flags.DurationVar(&b.duration, "duration", 10*time.Second, "how long each profile lasts, in whole seconds")
	flags.StringVar(&dir, "out", "bin/profiles", "`directory` of the profiles")
	flags.StringVar(&vault, "vault", os.Getenv("VAULT_SERVER"), "Vault server `binary`; by default what VAULT_SERVER names or scripts/vault.sh finds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.duration < time.Second {
		return fmt.Errorf("-duration takes a second or more")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return b.prepare(ctx, vault, profileTag, func(p prepared) error {
		results, err := b.profile(ctx, p, dir, b.duration)
		if err != nil {
			return err
		}
		writeProfiles(out, results)
		b.say("profile: go tool pprof -http=localhost: %s shows one", filepath.Join(dir, profileFile("plugin", "cpu", 1)))
		return nil
	})
}

func profileFile(process, kind string, readers int) string {
	return fmt.Sprintf("%s-%s-%d.pb.gz", strings.ToLower(process), kind, readers)
}

// profile reads a shared token on a server with plugins of profileTag.
func (b *bench) profile(ctx context.Context, p prepared, dir string, duration time.Duration) ([]profileResult, error) {
	s, err := startServer(ctx, p, "inmem")
	if err != nil {
		return nil, err
	}
	defer s.stop()
	if err := s.mountPlugin(ctx, enginePlugin, "apic"); err != nil {
		return nil, err
	}
	if err := b.writeConfig(ctx, s, "apic", "shared", nil); err != nil {
		return nil, err
	}
	plugin, err := s.profiled(enginePlugin)
	if err != nil {
		return nil, err
	}
	defer plugin.close()
	var results []profileResult
	for _, readers := range concurrencies {
		b.say("profile: %s", ofReaders(readers))
		taken, err := profileLoad(ctx, s, plugin, readers, dir, duration)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ofReaders(readers), err)
		}
		results = append(results, taken...)
	}
	return results, nil
}

// profileLoad takes all profiles at once while readers read.
func profileLoad(ctx context.Context, s *server, plugin *profiled, readers int, dir string, duration time.Duration) ([]profileResult, error) {
	seconds := max(int(duration.Seconds()), 1)
	loading, end := context.WithCancelCause(ctx)
	defer end(nil)
	var group sync.WaitGroup
	for _, f := range []struct {
		process, kind string
		get           func(context.Context, string) ([]byte, error)
		resource      string
	}{
		{"plugin", "cpu", plugin.get, "cpu"},
		{"plugin", "allocs", plugin.get, "allocs"},
		{"Vault", "cpu", s.pprof, "profile"},
		{"Vault", "allocs", s.pprof, "allocs"},
	} {
		group.Go(func() {
			content, err := f.get(loading, fmt.Sprintf("%s?seconds=%d", f.resource, seconds))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, profileFile(f.process, f.kind, readers)), content, 0o644)
			}
			if err != nil {
				end(fmt.Errorf("%s profile of the %s: %w", f.kind, f.process, err))
			}
		})
	}
	taken, err := s.load(loading, readers, bound{duration: time.Duration(seconds)*time.Second + profileTail}, onePath("apic/token/shared"))
	group.Wait()
	if err != nil {
		return nil, err
	}
	if err := context.Cause(loading); err != nil {
		return nil, err
	}
	reads := taken.rate() * float64(seconds)
	var results []profileResult
	for _, process := range []string{"plugin", "Vault"} {
		r := profileResult{process: process, readers: readers}
		if r.cpu, err = perRead(ctx, filepath.Join(dir, profileFile(process, "cpu", readers)), "cpu", "us", reads); err != nil {
			return nil, err
		}
		if r.bytes, err = perRead(ctx, filepath.Join(dir, profileFile(process, "allocs", readers)), "alloc_space", "B", reads); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

func perRead(ctx context.Context, profile, index, unit string, reads float64) (map[string]float64, error) {
	totals, err := byPart(ctx, profile, index, unit)
	for name := range totals {
		totals[name] /= reads
	}
	return totals, err
}

// pprof reads one of Vault's own profiles, which it gives to root.
func (s *server) pprof(ctx context.Context, resource string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.address+"/v1/sys/pprof/"+resource, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", s.token)
	response, err := s.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, answeredError(request.Method, "sys/pprof", response)
	}
	return io.ReadAll(response.Body)
}

func writeProfiles(out io.Writer, results []profileResult) {
	fmt.Fprint(out, `## Where a read's time goes

CPU time and allocated memory for each read of a shared token with inmem storage, as Go's profiles of the plugin and of
Vault tell them, by who has it spent: what encryption and system calls do for gRPC is gRPC's. What the readers take
themselves is not in it.

`)
	writeParts(out, "CPU", results, func(r profileResult) map[string]float64 { return r.cpu }, func(v float64) string { return fmt.Sprintf("%.0f µs", v) })
	fmt.Fprintln(out)
	writeParts(out, "allocated", results, func(r profileResult) map[string]float64 { return r.bytes }, func(v float64) string { return fmt.Sprintf("%.1f KiB", v/(1<<10)) })
}

// writeParts writes a table of the parts that have something to tell.
func writeParts(out io.Writer, title string, results []profileResult, of func(profileResult) map[string]float64, text func(float64) string) {
	head, rule, total := "| "+title+" |", "|---|", "| **all** |"
	for _, r := range results {
		head += fmt.Sprintf(" %s, %s |", r.process, ofReaders(r.readers))
		rule += "--:|"
		total += fmt.Sprintf(" %s |", text(sum(of(r))))
	}
	fmt.Fprintf(out, "%s\n%s\n", head, rule)
	for _, name := range partNames() {
		line, told := "| "+name+" |", false
		for _, r := range results {
			value := text(of(r)[name])
			line += fmt.Sprintf(" %s |", value)
			told = told || value != text(0)
		}
		if told {
			fmt.Fprintln(out, line)
		}
	}
	fmt.Fprintln(out, total)
}

func sum(values map[string]float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}
