// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"time"
)

const (
	// earlyReads are made before memory is measured for the first time.
	earlyReads = 1_000
	// manyReads is what memory must not grow over.
	manyReads = 100_000
	// idleTime is how long a process is not read before it is taken for idle. Go's
	// runtime gives memory back meanwhile.
	idleTime = 10 * time.Second
)

// endurance is the resident set of a plugin's process: after a thousand reads, the most of it when
// many more were made, and when these are over.
type endurance struct {
	Way               string
	Early, Busy, Idle int
}

// endure measures whether reads alone make a plugin grow, on fresh processes.
func (b *bench) endure(ctx context.Context, s *server) (all []endurance) {
	for _, e := range []endurance{{Way: wayShared}, {Way: wayFloor}} {
		mount := map[string]string{wayShared: "apic", wayFloor: "floor"}[e.Way]
		b.say("%d reads of one %s", manyReads, e.Way)
		s.reload(ctx, mount)
		s.teachFloor(ctx)
		path := func() string { return mount + "/token/shared" }
		s.read(ctx, load{workers: maxConcurrency, requests: earlyReads}, path)
		plugin := s.plugin(mount)
		e.Early = plugin.resident()
		s.read(ctx, load{workers: maxConcurrency, requests: manyReads - earlyReads}, path)
		e.Busy = int(must(plugin.NewStatus()).VmHWM)
		check(pause(ctx, idleTime))
		e.Idle = plugin.resident()
		all = append(all, e)
	}
	return all
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
