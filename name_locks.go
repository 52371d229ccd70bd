// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"sync"
)

// nameLocks are one lock for each name in use. The zero value is ready to use.
type nameLocks struct {
	mu     sync.Mutex
	byName map[string]*nameLock
}

type nameLock struct {
	// held has a value in it while somebody has the lock.
	held  chan struct{}
	users int
}

// lock waits for name's lock and returns the function that gives it back.
func (l *nameLocks) lock(name string) (unlock func()) {
	unlock, _ = l.lockWithin(context.Background(), name)
	return unlock
}

// lockWithin is lock that fails with ctx's error once that ends.
func (l *nameLocks) lockWithin(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	found := l.use(name)
	l.mu.Unlock()
	select {
	case found.held <- struct{}{}:
		return func() { l.unlock(name, found) }, nil
	case <-ctx.Done():
		l.leave(name, found)
		return nil, ctx.Err()
	}
}

// tryLock is lock that does not wait. It says whether it has got the lock.
func (l *nameLocks) tryLock(name string) (unlock func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byName[name] != nil {
		return nil, false
	}
	found := l.use(name)
	found.held <- struct{}{}
	return func() { l.unlock(name, found) }, true
}

// use returns name's lock, for one more user. The caller holds mu.
func (l *nameLocks) use(name string) *nameLock {
	if l.byName == nil {
		l.byName = make(map[string]*nameLock)
	}
	held, ok := l.byName[name]
	if !ok {
		held = &nameLock{held: make(chan struct{}, 1)}
		l.byName[name] = held
	}
	held.users++
	return held
}

func (l *nameLocks) unlock(name string, given *nameLock) {
	<-given.held
	l.leave(name, given)
}

// leave takes back what use did.
func (l *nameLocks) leave(name string, given *nameLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	given.users--
	if given.users == 0 {
		delete(l.byName, name)
	}
}
