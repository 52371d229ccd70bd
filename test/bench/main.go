// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command bench measures the engine on a Vault server of its own, next to the
// least that a plugin can do, and writes what it found to docs/performance.md.
// With the argument scale it measures what the number of configs changes, with
// soak it looks for what grows or fails in time, and with profile for what takes
// the time of a read. It is run from its own directory, with the server's program
// in VAULT_SERVER, talks to loopback only, and stops by itself. Paths are those of
// the repository's root.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// limit ends a run that hangs.
const limit = 2 * time.Hour

// bench is what a run is made with.
type bench struct {
	duration time.Duration
	rounds   int
	configs  int
	out      string

	sim     *apicsim.Sim
	service *apicsim.Server
	key     string
	dir     string // for what the servers write, and the programs of their plugins
}

// mode is one of the things that the program does.
type mode struct {
	defaults bench
	run      func(*bench, context.Context)
}

func modes() map[string]mode {
	const document = "docs/performance.md"
	return map[string]mode{
		"compare": {bench{duration: 2 * time.Second, rounds: 5, out: document}, (*bench).runComparison},
		"scale":   {bench{duration: 2 * time.Second, rounds: 5, configs: 100_000, out: document}, (*bench).runScale},
		"soak":    {bench{duration: 30 * time.Minute, configs: 300}, (*bench).runSoak},
		"profile": {bench{duration: 10 * time.Second, out: "bin/profiles"}, (*bench).runProfile},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := attempt(func() { run(ctx, os.Args[1:]) }); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) {
	check(os.Chdir("../.."))
	name := "compare"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	m, known := modes()[name]
	if !known {
		check(fmt.Errorf("%q is none of compare, scale, soak and profile", name))
	}
	b := m.defaults
	flags := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	flags.DurationVar(&b.duration, "duration", b.duration, "how long one measurement, one profile or the soak lasts")
	flags.IntVar(&b.rounds, "rounds", b.rounds, "how often each measurement is repeated; medians are reported")
	flags.IntVar(&b.configs, "configs", b.configs, "the largest number of configs on one mount")
	flags.StringVar(&b.out, "out", b.out, "`file` or directory of the result")
	check(flags.Parse(args))
	if b.rounds < min(m.defaults.rounds, 1) || b.duration < time.Second || b.configs < min(m.defaults.configs, 1) {
		check(errors.New("-rounds and -configs must be positive, -duration a second or more"))
	}
	ctx, cancel := context.WithTimeout(ctx, limit+b.duration)
	defer cancel()
	b.key = rand.Text()
	b.sim = must(apicsim.New(apicsim.Options{Keys: []string{b.key}}))
	b.service = must(apicsim.Start(b.sim))
	defer b.service.Close()
	made := must(os.MkdirTemp("", "apic-bench"))
	defer os.RemoveAll(made)
	// Vault compares a plugin's path with its directory's after following links.
	b.dir = must(filepath.EvalSymlinks(made))
	b.say("building the plugins")
	buildPlugins(ctx, b.dir)
	m.run(&b, ctx)
}

func (b *bench) say(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", values...)
}

// failure ends a run by a panic, as Fatal ends a test: whatever fails leaves nothing to measure.
// What was started is stopped by deferred calls.
type failure struct{ error }

func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

// attempt returns the failure that ended do, if one has.
func attempt(do func()) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			ended, ok := reason.(failure)
			if !ok {
				panic(reason)
			}
			err = ended.error
		}
	}()
	do()
	return nil
}
