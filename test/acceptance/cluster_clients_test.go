// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

// errRedirected is what a call ends with that was redirected twice: Vault's client
// follows once, and then answers neither a secret nor an error.
var errRedirected = errors.New("redirected again, to a server that is not the leader either")

// follower is a client that knows all servers and stays with the one that answers.
type follower struct {
	nodes []*api.Client
	at    int
}

// newFollowers begin with one server each, in turn.
func (c *cluster) newFollowers(count int) []*follower {
	c.Helper()
	followers := make([]*follower, count)
	for i := range followers {
		followers[i] = &follower{at: i % clusterNodes}
	}
	for _, node := range c.nodes {
		for i, client := range node.newReaders(count) {
			followers[i].nodes = append(followers[i].nodes, client)
		}
	}
	return followers
}

func (f *follower) client() *api.Client { return f.nodes[f.at] }

// moveOn has the next call go to another server.
func (f *follower) moveOn() { f.at = (f.at + 1) % len(f.nodes) }

func (f *follower) read(name string) reading {
	r := readOnce(f.client(), name)
	if r.err == nil && r.secret == nil {
		r.err = errRedirected
	}
	if r.err != nil {
		f.moveOn()
	}
	return r
}

// rotate asks for a rotation.
func (f *follower) rotate(name string) error {
	secret, err := f.client().Logical().Write("apic/config/"+name+"/rotate", nil)
	if err == nil && secret == nil {
		err = errRedirected
	}
	if err != nil {
		f.moveOn()
	}
	return err
}

// readOn has clients read until stop is called, which returns what each of them got.
func (c *cluster) readOn(clients int, pace time.Duration, name string) (stop func() [][]reading) {
	c.Helper()
	var reads []func() reading
	for _, f := range c.newFollowers(clients) {
		reads = append(reads, func() reading { return f.read(name) })
	}
	return c.crowdOf(pace, reads)
}

// rotator rotates one key after the other, and tries again if that fails.
type rotator struct {
	*cluster
	done     atomic.Int64
	failures []error
	// leave ends it and waits for its last rotation.
	leave func()
}

// rotateOn returns a rotator that is at work.
func (c *cluster) rotateOn(name string) *rotator {
	c.Helper()
	r, f := &rotator{cluster: c}, c.newFollowers(1)[0]
	end := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		pause := time.NewTicker(200 * time.Millisecond)
		defer pause.Stop()
		for {
			switch err := f.rotate(name); {
			case err == nil:
				r.done.Add(1)
			case !isBehind(err):
				r.failures = append(r.failures, err)
			}
			select {
			case <-pause.C:
			case <-end:
				return
			}
		}
	})
	r.leave = sync.OnceFunc(func() {
		close(end)
		work.Wait()
	})
	c.Cleanup(r.leave)
	return r
}

// await waits for a rotation that succeeds.
func (r *rotator) await() {
	r.Helper()
	before := r.done.Load()
	if until(longestRotation, nil, func() bool { return r.done.Load() > before }) {
		return
	}
	if _, failures := r.stop(); len(failures) > 0 {
		r.Fatalf("no rotation succeeded for %s, the last failed with: %v", longestRotation, failures[len(failures)-1])
	}
	r.Fatalf("no rotation ended for %s", longestRotation)
}

// isBehind recognises the refusal of a rotation that comes before the keys of those
// before it are deleted. A process deletes none in its first half minute, and this test
// asks for one rotation after the other.
func isBehind(err error) bool {
	return strings.Contains(err.Error(), "are not deleted at the issuer yet, and more would be left there")
}

// stop returns how many rotations succeeded, and why others failed.
func (r *rotator) stop() (done int64, failures []error) {
	r.leave()
	return r.done.Load(), r.failures
}
