// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Entities are the sources of a config whose readers share one token for each entity,
// by whose name the caller tells readers apart. They share the options, and so
// the backoff and the slots: a key that is refused is not sent once for each entity.
//
// They are bounded: a new entity replaces the one that was not read for longest. Readers
// that wait for the replaced one still get its token. The methods may be called from many
// goroutines.
type Entities struct {
	options Options
	limit   int
	// held counts the sources that are open or have an exchange in flight, and the
	// Entities until they are closed. Whichever caller makes it 0 calls release.
	held    atomic.Int64
	release func()

	mu     sync.Mutex
	closed bool
	byName map[string]*list.Element
	// recent are the *member in byName, the one that was read last first.
	recent *list.List
	// leaving are the evicted members that still have readers.
	leaving map[*member]struct{}
}

// member is the source of one entity.
type member struct {
	entity  string
	source  *Source
	readers int
}

// NewEntities returns the sources of at most limit entities. Each is as New(o) would make
// it, without o.Current. o.Release is called once, when all are closed and none of their
// exchanges is in flight.
func NewEntities(o Options, limit int) *Entities {
	e := &Entities{
		limit: limit, release: o.Release,
		byName: make(map[string]*list.Element), recent: list.New(), leaving: make(map[*member]struct{}),
	}
	e.options = o.withDefaults()
	e.options.Current, e.options.Release = nil, e.letGo
	e.held.Store(1)
	return e
}

// Read is Source.Read of an entity's source.
func (e *Entities) Read(ctx context.Context, entity string, minTTL time.Duration) (Response, error) {
	m, err := e.enter(entity)
	if err != nil {
		return Response{}, err
	}
	defer e.leave(m)
	return m.source.Read(ctx, minTTL)
}

// Replace is Source.Replace of an entity's source.
func (e *Entities) Replace(ctx context.Context, entity string) error {
	m, err := e.enter(entity)
	if err != nil {
		return err
	}
	defer e.leave(m)
	return m.source.Replace(ctx)
}

// Drop is Source.Drop of each entity that has the token called id. A service may have
// given the same one to several.
func (e *Entities) Drop(id string) {
	for _, m := range e.members() {
		if token := m.source.current.Load(); token != nil && token.ID == id {
			m.source.Drop(id)
		}
	}
}

// TakeOver copies the tokens of from for the entities that have no source here, as far as
// there is room.
func (e *Entities) TakeOver(from *Entities) {
	before := from.members()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range before {
		if e.closed || e.recent.Len() >= e.limit {
			return
		}
		token := m.source.Current()
		if _, known := e.byName[m.entity]; known || token == nil {
			continue
		}
		kept := e.newMember(m.entity, token)
		kept.source.DropNoSoonerThan(m.source)
		e.byName[m.entity] = e.recent.PushBack(kept)
	}
}

// Tokens counts the entities that have a token, and returns the one that was issued
// last, or nil if there is none.
func (e *Entities) Tokens() (count int, newest *IssuedToken) {
	for _, m := range e.members() {
		token := m.source.Current()
		if token == nil {
			continue
		}
		count++
		if newest == nil || token.IssuedAt.After(newest.IssuedAt) {
			newest = token
		}
	}
	return count, newest
}

// Close is Source.Close of every source, those of evicted entities included.
func (e *Entities) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	e.closed = true
	for m := range e.leaving {
		m.source.Close()
	}
	for _, at := range e.byName {
		at.Value.(*member).source.Close()
	}
	clear(e.byName)
	e.recent.Init()
	e.letGo()
}

// members returns the present members, the one that was read last first.
func (e *Entities) members() []*member {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*member, 0, e.recent.Len())
	for at := e.recent.Front(); at != nil; at = at.Next() {
		all = append(all, at.Value.(*member))
	}
	return all
}

// enter returns an entity's source, which stays open until the caller leaves it, unless
// all are closed.
func (e *Entities) enter(entity string) (*member, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	at, known := e.byName[entity]
	if known {
		e.recent.MoveToFront(at)
	} else {
		if e.recent.Len() >= e.limit {
			e.evict(e.recent.Back())
		}
		at = e.recent.PushFront(e.newMember(entity, nil))
		e.byName[entity] = at
	}
	m := at.Value.(*member)
	m.readers++
	return m, nil
}

// leave closes the source of an entity that was evicted meanwhile, once nobody reads
// from it.
func (e *Entities) leave(m *member) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m.readers--
	if _, evicted := e.leaving[m]; evicted && m.readers == 0 {
		delete(e.leaving, m)
		m.source.Close()
	}
}

// evict makes room. The caller holds the lock.
func (e *Entities) evict(at *list.Element) {
	m := e.recent.Remove(at).(*member)
	delete(e.byName, m.entity)
	if m.readers > 0 {
		e.leaving[m] = struct{}{}
		return
	}
	m.source.Close()
}

// newMember makes an entity's source. The caller holds the lock, and they are open.
func (e *Entities) newMember(entity string, current *IssuedToken) *member {
	e.held.Add(1)
	o := e.options
	o.Current = current
	return &member{entity: entity, source: New(o)}
}

// letGo notes that one holder needs the options no more, and calls release after the last.
// A source calls it with its lock held.
func (e *Entities) letGo() {
	if e.held.Add(-1) == 0 && e.release != nil {
		e.release()
	}
}
