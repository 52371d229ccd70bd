// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	// checkTime bounds a check. It is less than the 60 s after which Vault's own client
	// gives up.
	checkTime = 30 * time.Second
	// checkMemory is how long a check's outcome is told again. Who may check, may do so in
	// a loop, and each check calls the issuer some five times.
	checkMemory = 10 * time.Second
	// maxChecks is how many run at a time on a mount.
	maxChecks = 4
)

// checks bound what checks cost: one at a time for each config, whose outcome is told to
// all who ask for it within a short time. A check that has begun belongs to no caller, as
// an exchange does. Make them with newChecks.
type checks struct {
	log  func() hclog.Logger
	run  func(ctx context.Context, name string, e *entry) []finding
	slot chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	byName map[string]*checkRun
}

// checkRun is a check under way, or one that has ended.
type checkRun struct {
	// revision is the config's.
	revision string
	done     chan struct{}
	// What follows is written before done is closed.
	findings []finding
	err      error
	at       time.Time
}

func newChecks(log func() hclog.Logger, run func(context.Context, string, *entry) []finding) *checks {
	c := &checks{log: log, run: run, slot: make(chan struct{}, maxChecks), byName: make(map[string]*checkRun)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends the checks that are under way, and waits for them.
func (c *checks) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// get returns what a check of the entry has found, and when.
func (c *checks) get(ctx context.Context, name string, e *entry) (findings []finding, at time.Time, err error) {
	x, err := c.join(name, e)
	if err != nil {
		return nil, time.Time{}, err
	}
	select {
	case <-x.done:
		return x.findings, x.at, x.err
	case <-ctx.Done():
		return nil, time.Time{}, ctx.Err()
	}
}

// join returns the check that is under way, or has ended just now, or another one.
func (c *checks) join(name string, e *entry) (*checkRun, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, logical.CodedError(http.StatusServiceUnavailable, "check config: the mount is being unloaded; try again")
	}
	maps.DeleteFunc(c.byName, func(_ string, x *checkRun) bool { return x.isStale() })
	if x, ok := c.byName[name]; ok && x.revision == e.config.Revision {
		return x, nil
	}
	x := &checkRun{revision: e.config.Revision, done: make(chan struct{})}
	c.byName[name] = x
	c.wg.Go(func() {
		defer close(x.done)
		defer func() { x.at = time.Now() }()
		defer func() {
			if p := recover(); p != nil {
				reportPanic(c.log(), p, "checking a config")
				x.err = errors.New("the plugin failed on this request; the server's log says where")
			}
		}()
		x.findings, x.err = c.runBounded(name, e)
	})
	return x, nil
}

func (c *checks) runBounded(name string, e *entry) ([]finding, error) {
	ctx, cancel := context.WithTimeout(c.ctx, checkTime)
	defer cancel()
	select {
	case c.slot <- struct{}{}:
		defer func() { <-c.slot }()
	case <-ctx.Done():
		return nil, logical.CodedError(http.StatusServiceUnavailable, "check config: too many checks run at once; try again later")
	}
	return c.run(ctx, name, e), nil
}

func (x *checkRun) isStale() bool {
	select {
	case <-x.done:
		return time.Since(x.at) >= checkMemory
	default:
		return false
	}
}
