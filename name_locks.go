// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import "sync"

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
	l.mu.Lock()
	found := l.use(name)
	l.mu.Unlock()
	found.held <- struct{}{}
	return func() { l.unlock(name, found) }
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
	l.mu.Lock()
	defer l.mu.Unlock()
	given.users--
	if given.users == 0 {
		delete(l.byName, name)
	}
}
