// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"maps"
	"slices"
	"sync"
)

// entries are the configs in use, by name. Readers hold the lock for a look at the map alone. The
// zero value has none and is ready to use.
type entries struct {
	mu     sync.RWMutex
	byName map[string]*entry
}

// get returns name's entry, or nil.
func (e *entries) get(name string) *entry {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.byName[name]
}

// put replaces name's entry, and returns the one that was there, or nil.
func (e *entries) put(name string, next *entry) (before *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byName == nil {
		e.byName = make(map[string]*entry)
	}
	before = e.byName[name]
	e.byName[name] = next
	return before
}

// remove removes name's entry and returns it, or nil.
func (e *entries) remove(name string) *entry {
	e.mu.Lock()
	defer e.mu.Unlock()
	removed := e.byName[name]
	delete(e.byName, name)
	return removed
}

// removeIf removes name's entry if it is that one.
func (e *entries) removeIf(name string, present *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byName[name] == present {
		delete(e.byName, name)
	}
}

func (e *entries) names() []string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Collect(maps.Keys(e.byName))
}
