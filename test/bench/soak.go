// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

const (
	soakReaders  = 16
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

// soak is readers and writers on one mount, and what they met with.
type soak struct {
	*bench
	server   *server
	duration time.Duration
	rate     int // reads a second, of all readers

	reads, rotations, patches atomic.Int64
	failed                    failures
	samples                   []usage
}

// runSoak soaks for a time. Its error says that something grew or failed.
func runSoak(ctx context.Context, args []string, out, progress io.Writer) error {
	k := &soak{bench: &bench{key: apicsim.NewKeyValue(), progress: progress}}
	var vault string
	flags := flag.NewFlagSet("bench soak", flag.ContinueOnError)
	flags.DurationVar(&k.duration, "duration", 30*time.Minute, "how long to read")
	flags.IntVar(&k.configs, "configs", 300, "how many configs are read")
	flags.IntVar(&k.rate, "rate", 400, "reads a second")
	flags.StringVar(&vault, "vault", os.Getenv("VAULT_SERVER"), "Vault server `binary`; by default what VAULT_SERVER names or scripts/vault.sh finds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if k.configs < 2 || k.rate < 1 || k.duration < leastSamples*leastInterval {
		return fmt.Errorf("-configs takes 2 or more, -rate 1 or more, -duration %s or more", leastSamples*leastInterval)
	}
	ctx, cancel := context.WithTimeout(ctx, k.duration+limit)
	defer cancel()
	return k.prepare(ctx, vault, profileTag, func(p prepared) error {
		var err error
		if k.server, err = startServer(ctx, p, "raft"); err != nil {
			return err
		}
		defer k.server.stop()
		if err := k.run(ctx); err != nil {
			return err
		}
		return k.judge(out)
	})
}

func (k *soak) config(i int64) string { return fmt.Sprintf("soak-%04d", i%int64(k.configs)) }

// run makes the configs and has everything happen to them for the duration.
func (k *soak) run(ctx context.Context) error {
	if err := k.server.mountPlugin(ctx, enginePlugin, "apic"); err != nil {
		return err
	}
	k.sim.SetTokenTTL(soakTokenTTL)
	k.say("soak: writing %d configs", k.configs)
	if err := eachOf(ctx, k.configs, k.setUp); err != nil {
		return err
	}
	process, err := k.server.profiled(enginePlugin)
	if err != nil {
		return err
	}
	defer process.close()
	k.say("soak: reading for %s", k.duration)
	// What began before the end may come to its own.
	during, cancel := context.WithTimeout(ctx, k.duration)
	defer cancel()
	var group sync.WaitGroup
	for range soakReaders {
		group.Go(func() {
			every(during, soakReaders*time.Second/time.Duration(k.rate), func() { k.read(ctx) })
		})
	}
	group.Go(func() { every(during, rotateEvery, func() { k.rotate(ctx) }) })
	group.Go(func() { every(during, patchEvery, func() { k.patch(ctx) }) })
	every(during, max(k.duration/soakSamples, leastInterval), func() {
		var taken usage
		if taken, err = process.usage(ctx); err != nil {
			cancel()
			return
		}
		k.samples = append(k.samples, taken)
	})
	group.Wait()
	if err != nil {
		return fmt.Errorf("the plugin's process: %w", err)
	}
	return ctx.Err()
}

// setUp writes a config with a key of its own, so that its rotation deletes that, and of an
// identity of its own, since IAM lets one have 20.
func (k *soak) setUp(ctx context.Context, i int) error {
	key := apicsim.NewKeyValue()
	k.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: fmt.Sprintf("iam-ServiceId-%d", i)})
	return k.writeConfig(ctx, k.server, "apic", k.config(int64(i)), map[string]any{
		"api_key": key, "iam_url": k.service.URL(), "rotation_grace_period": soakGrace,
	})
}

// read reads any token, which must live.
func (k *soak) read(ctx context.Context) {
	path := "apic/token/" + k.config(rand.Int64N(int64(k.configs)))
	data, err := k.server.readData(ctx, path)
	if err == nil {
		err = requireLiving(data)
	}
	k.count(&k.reads, "read of "+path, err)
}

func requireLiving(data map[string]any) error {
	text, _ := data["expires_at"].(string)
	expires, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("the token has no expires_at")
	}
	if over := time.Since(expires); over > 0 {
		return fmt.Errorf("the token ended %s ago", over)
	}
	return nil
}

func (k *soak) rotate(ctx context.Context) {
	path := "apic/config/" + k.config(k.rotations.Load()) + "/rotate"
	k.count(&k.rotations, "rotation", k.server.call(ctx, http.MethodPut, path, nil, nil))
}

// patch changes what makes the engine build a config's entry anew.
func (k *soak) patch(ctx context.Context) {
	n := k.patches.Load()
	path := "apic/config/" + k.config(n/int64(rotateEvery/patchEvery)+int64(k.configs)/2)
	settings := map[string]any{"request_timeout": fmt.Sprintf("%ds", 10+n%5)}
	k.count(&k.patches, "patch", k.server.call(ctx, http.MethodPatch, path, settings, nil))
}

func (k *soak) count(done *atomic.Int64, what string, err error) {
	done.Add(1)
	if err != nil {
		k.failed.add(what, err)
	}
}

// judge prints what was measured and met with.
func (k *soak) judge(out io.Writer) error {
	if len(k.samples) < leastSamples {
		return fmt.Errorf("%d samples of the plugin's process are too few to judge by", len(k.samples))
	}
	counts := k.sim.Counts()
	fmt.Fprintf(out, "%s, %d configs, tokens of %s: %d reads, %d exchanges, %d rotations, %d patches, %d keys made and %d deleted\n\n",
		k.duration, k.configs, soakTokenTTL, k.reads.Load(), counts.Exchanges, k.rotations.Load(), k.patches.Load(), counts.KeysCreated, counts.KeysDeleted)
	all := trends(k.samples)
	writeTrends(out, all)
	fmt.Fprintln(out)
	k.failed.write(out)
	growing := 0
	for _, t := range all {
		if t.grows() {
			growing++
		}
	}
	if growing > 0 || k.failed.total > 0 {
		return fmt.Errorf("soak: %d of %d measures grow, %d requests failed", growing, len(all), k.failed.total)
	}
	fmt.Fprintln(out, "soak: flat, and no request failed")
	return nil
}
