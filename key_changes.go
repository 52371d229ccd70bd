// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// unloadPatience is how long an unload waits for the rotations it has cancelled
// to clean up after themselves. What they leave is in the write-ahead log.
const unloadPatience = 5 * time.Second

// keyChange is a rotation or a deletion of one config's key that is under way.
type keyChange struct {
	// doing completes the sentence "the config is being ...".
	doing  string
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	// rotated and err are the outcome of a rotation, once done is closed.
	rotated *rotated
	err     error
}

// keyChanges are those under way, at most one for each config. While there is one,
// nothing else may write the config. The zero value is ready to use.
type keyChanges struct {
	mu     sync.Mutex
	byName map[string]*keyChange
	closed bool
}

// begin starts a change of name's key, or returns the one that is under way.
func (k *keyChanges) begin(name, doing string) (change *keyChange, begun bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if present, ok := k.byName[name]; ok {
		return present, false
	}
	change = &keyChange{doing: doing, done: make(chan struct{})}
	change.ctx, change.cancel = context.WithCancelCause(context.Background())
	if k.closed {
		change.cancel(errUnloaded)
	}
	if k.byName == nil {
		k.byName = make(map[string]*keyChange)
	}
	k.byName[name] = change
	return change, true
}

func (k *keyChanges) end(name string, change *keyChange) {
	k.mu.Lock()
	delete(k.byName, name)
	k.mu.Unlock()
	change.cancel(nil)
	close(change.done)
}

// of returns the change that is under way for name, or nil.
func (k *keyChanges) of(name string) *keyChange {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.byName[name]
}

// close cancels all changes and waits a little for them to end.
func (k *keyChanges) close() {
	k.mu.Lock()
	k.closed = true
	ending := slices.Collect(maps.Values(k.byName))
	k.mu.Unlock()
	for _, change := range ending {
		change.cancel(errUnloaded)
	}
	patience := time.After(unloadPatience)
	for _, change := range ending {
		select {
		case <-change.done:
		case <-patience:
			return
		}
	}
}

// beginKeyChange is begin, in its turn with writes of the config: once it returns,
// a write that prepared itself before will find the change and give up.
func (b *backend) beginKeyChange(name, doing string) (change *keyChange, begun bool) {
	defer b.entries.locks.lock(name)()
	return b.changes.begin(name, doing)
}

// conflict is what somebody is told who comes in a change's way.
func (c *keyChange) conflict(name string) error {
	return logical.CodedError(http.StatusConflict, fmt.Sprintf("config %q is being %s; nothing was changed: try again when that has ended", name, c.doing))
}
