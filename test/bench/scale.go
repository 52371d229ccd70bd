// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// settledReads are made before memory is measured for the first time.
	settledReads = 1_000
	// manyReads is what memory must not grow over.
	manyReads = 100_000
	// idleTime is how long a process is left alone before it is taken for idle. Go's
	// runtime gives memory back meanwhile.
	idleTime = 10 * time.Second
	// memoryInterval is the time between two looks at a busy process's memory.
	memoryInterval = 50 * time.Millisecond

	reloads = 5
)

// scaled is a mount with a number of configs, and what was measured of it. Each
// has a plugin process of its own, so that memory can be told apart.
type scaled struct {
	configs       int
	program       string
	before, after int64 // resident, before and after every config was used
	rates         []float64
	p99           []float64
	firstUsed     time.Duration // until the first token, reloaded with every config in memory
	first         []float64
}

func (m *scaled) name(i int) string { return fmt.Sprintf("c%05d", i) }

func (m *scaled) randomToken(random *rand.Rand) string {
	return m.program + "/token/" + m.name(random.IntN(m.configs))
}

// endurance is a plugin's memory after a thousand reads, the most of it during many
// more, and when these are over.
type endurance struct {
	name              string
	early, busy, idle int64
}

type scaleResult struct {
	storage string
	mounts  []*scaled
	endured []endurance
}

// scale measures what a number of configs changes.
func (b *bench) scale(ctx context.Context, s *server, storage string) (*scaleResult, error) {
	result := &scaleResult{storage: storage}
	for _, configs := range []int{1, 100, b.configs} {
		m := &scaled{configs: configs, program: fmt.Sprintf("apic-%d", configs)}
		result.mounts = append(result.mounts, m)
		b.say("scale: a mount with %d", configs)
		if err := b.fill(ctx, s, m); err != nil {
			return nil, fmt.Errorf("%d configs: %w", configs, err)
		}
	}
	for round := range b.rounds {
		b.say("scale: round %d of %d", round+1, b.rounds)
		for _, m := range result.mounts {
			if _, err := s.load(ctx, maxConcurrency, bound{duration: warmUp}, m.randomToken); err != nil {
				return nil, err
			}
			taken, err := s.load(ctx, maxConcurrency, bound{duration: b.duration}, m.randomToken)
			if err != nil {
				return nil, err
			}
			m.rates = append(m.rates, taken.rate())
			m.p99 = append(m.p99, taken.quantile(0.99).Seconds())
		}
	}
	if err := b.reloads(ctx, s, result.mounts); err != nil {
		return nil, err
	}
	return result, b.endure(ctx, s, result)
}

// fill mounts a plugin, writes its configs and uses each once.
func (b *bench) fill(ctx context.Context, s *server, m *scaled) error {
	if err := copyProgram(filepath.Join(s.plugins, enginePlugin), filepath.Join(s.plugins, m.program)); err != nil {
		return err
	}
	if err := s.mountPlugin(ctx, m.program, m.program); err != nil {
		return err
	}
	err := eachOf(ctx, m.configs, func(ctx context.Context, i int) error {
		return b.writeConfig(ctx, s, m.program, m.name(i), nil)
	})
	if err != nil {
		return err
	}
	// A fresh process, whose memory does not hold what writing left behind.
	if err := s.reload(ctx, m.program); err != nil {
		return err
	}
	one := onePath(m.program + "/token/" + m.name(0))
	if _, err := s.load(ctx, maxConcurrency, bound{reads: settledReads}, one); err != nil {
		return err
	}
	if m.before, err = s.residentBytes(m.program); err != nil {
		return err
	}
	var next atomic.Int64
	everyOne := func(*rand.Rand) string { return m.program + "/token/" + m.name(int(next.Add(1)-1)) }
	if _, err := s.load(ctx, maxConcurrency, bound{reads: int64(m.configs)}, everyOne); err != nil {
		return err
	}
	m.after, err = s.residentBytes(m.program)
	return err
}

// reloads measures how long a token cannot be had when a plugin is reloaded.
func (b *bench) reloads(ctx context.Context, s *server, mounts []*scaled) error {
	for round := range 1 + reloads {
		b.say("scale: reload %d of %d", round+1, 1+reloads)
		for _, m := range mounts {
			begin := time.Now()
			if err := s.reload(ctx, m.program); err != nil {
				return err
			}
			one := onePath(m.program + "/token/" + m.name(m.configs/2))
			if _, err := s.load(ctx, 1, bound{reads: 1}, one); err != nil {
				return err
			}
			if took := time.Since(begin); round == 0 {
				m.firstUsed = took
			} else {
				m.first = append(m.first, took.Seconds())
			}
		}
	}
	return nil
}

// endure measures whether reads alone make a plugin grow, on fresh processes.
func (b *bench) endure(ctx context.Context, s *server, result *scaleResult) error {
	one := result.mounts[0]
	for _, e := range []struct{ name, program, path string }{
		{wayShared, one.program, one.program + "/token/" + one.name(0)},
		{wayFloor, floorPlugin, "floor/token/shared"},
	} {
		b.say("scale: %d reads of one %s", manyReads, e.name)
		if err := b.restart(ctx, s, e.program); err != nil {
			return err
		}
		measured := endurance{name: e.name}
		if _, err := s.load(ctx, maxConcurrency, bound{reads: settledReads}, onePath(e.path)); err != nil {
			return err
		}
		var err error
		if measured.early, err = s.residentBytes(e.program); err != nil {
			return err
		}
		if measured.busy, err = s.busyBytes(ctx, e.program, e.path); err != nil {
			return err
		}
		select {
		case <-time.After(idleTime):
		case <-ctx.Done():
			return ctx.Err()
		}
		if measured.idle, err = s.residentBytes(e.program); err != nil {
			return err
		}
		result.endured = append(result.endured, measured)
	}
	return nil
}

// busyBytes is the most that a plugin's process is seen to hold during many reads.
func (s *server) busyBytes(ctx context.Context, program, path string) (most int64, err error) {
	loading, end := context.WithCancel(ctx)
	defer end()
	var (
		group  sync.WaitGroup
		loaded error
	)
	group.Go(func() {
		defer end()
		_, loaded = s.load(loading, maxConcurrency, bound{reads: manyReads - settledReads}, onePath(path))
	})
	every(loading, memoryInterval, func() {
		var now int64
		if now, err = s.residentBytes(program); err != nil {
			end()
		}
		most = max(most, now)
	})
	group.Wait()
	return most, errors.Join(err, loaded)
}

// restart reloads a plugin; the floor must be told its answer again.
func (b *bench) restart(ctx context.Context, s *server, program string) error {
	if err := s.reload(ctx, program); err != nil || program != floorPlugin {
		return err
	}
	return s.teachFloor(ctx)
}

func (s *server) residentBytes(program string) (int64, error) {
	pid, err := s.plugin(program)
	if err != nil {
		return 0, err
	}
	return residentBytes(pid)
}

func copyProgram(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

// eachOf calls do for 0 to n-1, some at a time, and returns the first error.
func eachOf(ctx context.Context, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		group sync.WaitGroup
		next  atomic.Int64
	)
	for range 16 {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}
