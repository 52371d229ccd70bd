// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"hash/maphash"
	"sync"
)

// entries are the configs in use, by name. Readers hold the lock for a look at one alone. The zero
// value has none and is ready to use.
//
// The collector follows each pointer in a map, in an order that is random in memory. Of a hundred
// thousand configs, those to names and entries would be a fifth of its work, so that the map has
// none, and the entries stand in the order in which they came.
type entries struct {
	mu   sync.RWMutex
	seed maphash.Seed
	// places are indexes of all, by the hash of a name. Of two names with the same hash, which
	// nobody can choose, one displaces the other: its config is loaded again at the next read.
	places map[uint64]int
	all    []*entry
}

// get returns name's entry, or nil.
func (e *entries) get(name string) *entry {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if at, ok := e.find(name); ok {
		return e.all[at]
	}
	return nil
}

// find returns the place of name's entry, if it has one. The caller holds the lock.
func (e *entries) find(name string) (at int, ok bool) {
	if len(e.all) == 0 {
		return 0, false // There may be no seed yet.
	}
	at, ok = e.places[e.hash(name)]
	return at, ok && e.all[at].watch.name == name
}

func (e *entries) hash(name string) uint64 { return maphash.String(e.seed, name) }

// put puts an entry in the place of the one that its config has, and returns that, or nil.
func (e *entries) put(next *entry) (before *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.places == nil {
		e.seed, e.places = maphash.MakeSeed(), make(map[uint64]int)
	}
	hash := e.hash(next.watch.name)
	at, ok := e.places[hash]
	if !ok {
		e.places[hash] = len(e.all)
		e.all = append(e.all, next)
		return nil
	}
	before, e.all[at] = e.all[at], next
	return before
}

// remove removes name's entry and returns it, or nil.
func (e *entries) remove(name string) *entry {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.find(name)
	if !ok {
		return nil
	}
	return e.removeAt(at)
}

// removeIf removes name's entry if it is that one.
func (e *entries) removeIf(name string, present *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if at, ok := e.find(name); ok && e.all[at] == present {
		e.removeAt(at)
	}
}

// removeAt gives the last entry the place of another. The caller holds the lock.
func (e *entries) removeAt(at int) *entry {
	removed, last := e.all[at], len(e.all)-1
	moved := e.all[last]
	e.places[e.hash(moved.watch.name)], e.all[at] = at, moved
	delete(e.places, e.hash(removed.watch.name))
	e.all[last] = nil
	e.all = e.all[:last]
	return removed
}

func (e *entries) names() []string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	names := make([]string, len(e.all))
	for i, one := range e.all {
		names[i] = one.watch.name
	}
	return names
}
