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
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// bench is what one of the program's modes is run with.
type bench struct {
	run      func(*bench, context.Context)
	duration time.Duration
	rounds   int
	configs  int
	out      string

	sim     *apicsim.Sim
	service *apicsim.Server
	key     string
	dir     string         // for what the servers write, and the programs of their plugins
	servers sync.WaitGroup // those that have not ended
}

func modes() map[string]*bench {
	const document = "docs/performance.md"
	return map[string]*bench{
		// What else a machine does changes from second to second. Ratios within a round that is shorter
		// have less of it in them.
		"compare": {run: (*bench).runComparison, duration: 300 * time.Millisecond, rounds: 41, configs: 1, out: document},
		// With a hundred thousand configs, seconds pass between two collections of the plugin's heap:
		// in a shorter round there would be one or none.
		"scale":   {run: (*bench).runScale, duration: 10 * time.Second, rounds: 11, configs: 100_000, out: document},
		"soak":    {run: (*bench).runSoak, duration: 30 * time.Minute, rounds: 1, configs: 300},
		"profile": {run: (*bench).runProfile, duration: 10 * time.Second, rounds: 1, configs: 1, out: "bin/profiles"},
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := attempt(func() { run(ctx, os.Args[1:]) }); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) {
	check(os.Chdir("../.."))
	name := "compare"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	b, known := modes()[name]
	if !known {
		check(fmt.Errorf("%q is none of compare, scale, soak and profile", name))
	}
	flags := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	flags.DurationVar(&b.duration, "duration", b.duration, "how long one measurement, one profile or the soak lasts")
	flags.IntVar(&b.rounds, "rounds", b.rounds, "how often each measurement is repeated; medians are reported")
	flags.IntVar(&b.configs, "configs", b.configs, "the largest number of configs on one mount")
	flags.StringVar(&b.out, "out", b.out, "`file` or directory of the result")
	check(flags.Parse(args))
	if b.rounds < 1 || time.Duration(b.rounds)*b.duration < time.Second || b.configs < 1 {
		check(errors.New("-rounds and -configs must be positive, and -duration a second or more for all rounds together"))
	}
	b.key = apicsim.NewKeyValue()
	b.sim = must(apicsim.New(apicsim.Options{Keys: []string{b.key}}))
	b.service = must(apicsim.Start(b.sim))
	defer b.service.Close()
	// Vault compares a plugin's path with its directory's after following links.
	b.dir = must(filepath.EvalSymlinks(must(os.MkdirTemp("", "apic-bench"))))
	defer os.RemoveAll(b.dir)
	log.Print("building the plugins")
	buildPlugins(ctx, b.dir)
	ctx, cancel := context.WithCancel(ctx)
	defer b.servers.Wait()
	defer cancel()
	b.run(b, ctx)
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
		reason := recover()
		if ended, ok := reason.(failure); ok {
			err = ended.error
		} else if reason != nil {
			panic(reason)
		}
	}()
	do()
	return nil
}

// together does all at the same time, and ends when they have or one has failed.
func together(ctx context.Context, all ...func(context.Context)) {
	group, during := errgroup.WithContext(ctx)
	for _, do := range all {
		group.Go(func() error { return attempt(func() { do(during) }) })
	}
	check(group.Wait())
}
