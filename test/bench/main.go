// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command bench measures the engine on a Vault server of its own, next to the
// least that a plugin can do, and writes what it found to docs/performance.md.
// With the argument soak it looks for what grows or fails in time instead, with
// profile for what takes the time of a read. It is run from its own directory,
// talks to loopback only, and stops by itself. Paths are those of the repository's root.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// limit ends a run that hangs.
const limit = 30 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := os.Chdir("../..")
	if err == nil {
		err = choose(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// choose runs the benchmark, or what the first argument names in its place.
func choose(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return run(ctx, args, os.Stderr)
	}
	switch args[0] {
	case "soak":
		return runSoak(ctx, args[1:], os.Stdout, os.Stderr)
	case "profile":
		return runProfile(ctx, args[1:], os.Stdout, os.Stderr)
	default:
		return run(ctx, args, os.Stderr)
	}
}

type bench struct {
	duration time.Duration
	rounds   int
	configs  int

	sim      *apicsim.Sim
	service  *apicsim.Server
	key      string
	progress io.Writer
}

func run(ctx context.Context, args []string, progress io.Writer) error {
	b := &bench{key: rand.Text(), progress: progress}
	var storage, out, vault string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.DurationVar(&b.duration, "duration", 2*time.Second, "how long one measurement lasts")
	flags.IntVar(&b.rounds, "rounds", 5, "how often each is repeated; medians are reported")
	flags.IntVar(&b.configs, "configs", 10_000, "the largest number of configs on one mount")
	flags.StringVar(&storage, "storage", "both", "Vault's storage: inmem, raft or both")
	flags.StringVar(&out, "out", "docs/performance.md", "`file` of the report; its chart is beside it, as .svg")
	flags.StringVar(&vault, "vault", os.Getenv("VAULT_SERVER"), "Vault server `binary`; by default what VAULT_SERVER names or scripts/vault.sh finds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	storages, ok := map[string][]string{"inmem": {"inmem"}, "raft": {"raft"}, "both": {"inmem", "raft"}}[storage]
	if !ok {
		return fmt.Errorf("-storage takes inmem, raft or both")
	}
	if b.rounds < 1 || b.duration <= 0 || b.configs < 1 {
		return fmt.Errorf("-rounds, -duration and -configs take positive values")
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := b.run(ctx, storages, vault)
	if err != nil {
		return err
	}
	drawn, err := r.chart()
	if err != nil {
		return err
	}
	image := strings.TrimSuffix(out, filepath.Ext(out)) + ".svg"
	if err := os.WriteFile(image, drawn, 0o644); err != nil {
		return err
	}
	return os.WriteFile(out, r.markdown(filepath.Base(image)), 0o644)
}

// run measures everything.
func (b *bench) run(ctx context.Context, storages []string, vault string) (r *report, err error) {
	err = b.prepare(ctx, vault, "", func(p prepared) error {
		if r, err = newReport(ctx, b, p.vault); err != nil {
			return err
		}
		for i, storage := range storages {
			if err := b.runOn(ctx, p, storage, i == len(storages)-1, r); err != nil {
				return err
			}
		}
		r.profiled, err = b.profileAgain(ctx, p)
		return err
	})
	return r, err
}

// profileAgain profiles plugins that are built for it, on a server of their own.
func (b *bench) profileAgain(ctx context.Context, p prepared) ([]profileResult, error) {
	dir := filepath.Join(p.dir, profileTag)
	again := prepared{vault: p.vault, dir: dir, plugins: filepath.Join(dir, "plugins")}
	if err := buildPlugins(ctx, again.plugins, profileTag); err != nil {
		return nil, err
	}
	return b.profile(ctx, again, dir, time.Duration(b.rounds)*b.duration)
}

// prepared is what servers are started with.
type prepared struct {
	vault   string // the program
	dir     string // for what the servers write
	plugins string // Vault's plugin directory
}

// prepare starts the simulated service and builds the plugins, with a build tag if there is one.
// What it starts and writes is gone when it returns.
func (b *bench) prepare(ctx context.Context, vault, tag string, do func(prepared) error) error {
	vault, err := findVault(ctx, vault)
	if err != nil {
		return err
	}
	if b.sim, err = apicsim.New(apicsim.Options{Keys: []string{b.key}}); err != nil {
		return err
	}
	if b.service, err = apicsim.Start(b.sim); err != nil {
		return err
	}
	defer b.service.Close()
	dir, err := os.MkdirTemp("", "apic-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// Vault compares a plugin's path with its directory's after following links.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	plugins := filepath.Join(dir, "plugins")
	b.say("building the plugins")
	if err := buildPlugins(ctx, plugins, tag); err != nil {
		return err
	}
	return do(prepared{vault: vault, dir: dir, plugins: plugins})
}

// runOn measures on a new server. The number of configs is varied on the last one.
func (b *bench) runOn(ctx context.Context, p prepared, storage string, last bool, r *report) error {
	s, err := startServer(ctx, p, storage)
	if err != nil {
		return err
	}
	defer s.stop()
	compared, err := b.compare(ctx, s, storage)
	if err != nil {
		return err
	}
	r.compared = append(r.compared, compared)
	if !last {
		return nil
	}
	r.scaled, err = b.scale(ctx, s, storage)
	return err
}

func (b *bench) say(format string, values ...any) {
	fmt.Fprintf(b.progress, "bench: "+format+"\n", values...)
}

// findVault takes the server that is named, or has one found or built.
func findVault(ctx context.Context, named string) (string, error) {
	if named == "" {
		find := exec.CommandContext(ctx, "scripts/vault.sh")
		find.Stderr = os.Stderr
		found, err := find.Output()
		if err != nil {
			return "", fmt.Errorf("scripts/vault.sh: %w", err)
		}
		named = strings.TrimSpace(string(found))
	}
	path, err := exec.LookPath(named)
	if err != nil {
		return "", err
	}
	// It is started in a directory of its own.
	return filepath.Abs(path)
}
