// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// entry is what is in memory of one config. It is never changed: a write
// replaces the whole of it, so that what began under the old config cannot end
// up under the new one.
type entry struct {
	config *config
	source *tokensource.Source
	watch  *exchangeWatch
}

// close lets an exchange in flight finish, which then is no news any more of the
// config that is stored.
func (e *entry) close() {
	e.watch.active.Store(false)
	e.source.Close()
}

// entries are the configs in memory. Readers find theirs without a lock; whoever
// loads, replaces or drops one holds that name's lock, and no other, across the
// storage call that goes with it. The zero value is ready to use.
type entries struct {
	byName sync.Map // string to *entry
	locks  nameLocks
	// closed is set once and keeps a reader that waited through the unmount from
	// loading its config again.
	closed atomic.Bool
}

var errUnloaded = errors.New("the mount is being unloaded")

func (e *entries) get(name string) *entry {
	found, ok := e.byName.Load(name)
	if !ok {
		return nil
	}
	return found.(*entry)
}

// set replaces name's entry. The caller holds name's lock.
func (e *entries) set(name string, fresh *entry) {
	fresh.watch.active.Store(true)
	if old, ok := e.byName.Swap(name, fresh); ok {
		old.(*entry).close()
	}
	if e.closed.Load() {
		e.remove(name) // dropAll may have passed by already.
	}
}

// shares says whether name's readers get the token called id.
func (e *entries) shares(name, id string) bool {
	present := e.get(name)
	if present == nil {
		return false
	}
	lease := present.source.Current()
	return lease != nil && lease.ID == id
}

// remove forgets name's entry. The caller holds name's lock.
func (e *entries) remove(name string) {
	if old, ok := e.byName.LoadAndDelete(name); ok {
		old.(*entry).close()
	}
}

func (e *entries) drop(name string) {
	defer e.locks.lock(name)()
	e.remove(name)
}

func (e *entries) dropAll() {
	e.closed.Store(true)
	e.byName.Range(func(name, _ any) bool {
		e.drop(name.(string))
		return true
	})
}

// entry returns name's entry, from storage if it is not in memory yet, or nil if
// there is no such config.
func (b *backend) entry(ctx context.Context, s logical.Storage, name string) (*entry, error) {
	if found := b.entries.get(name); found != nil {
		return found, nil
	}
	if b.entries.closed.Load() {
		return nil, errUnloaded
	}
	if checkName(name) != nil {
		return nil, nil // Storage takes some of these names amiss.
	}
	defer b.entries.locks.lock(name)()
	if found := b.entries.get(name); found != nil {
		return found, nil
	}
	stored, err := loadConfig(ctx, s, name)
	if err != nil || stored == nil {
		return nil, err
	}
	loaded, err := b.newEntry(name, stored, nil)
	if err != nil {
		return nil, err
	}
	b.entries.set(name, loaded)
	return loaded, nil
}

// newEntry wires a config called name to its token service. current is a token that the
// config's key has already bought, or nil.
func (b *backend) newEntry(name string, c *config, current *tokensource.Lease) (*entry, error) {
	transport, release, err := b.transports.Acquire(c.CACert)
	if err != nil {
		return nil, fieldError("ca_cert", err.Error())
	}
	service, err := tokenservice.New(tokenservice.Options{
		Kind:           c.TokenService,
		TokenURL:       c.tokenURL(),
		APIKey:         upstream.Secret(c.APIKey),
		ClientID:       c.ClientID,
		ClientSecret:   upstream.Secret(c.ClientSecret),
		Transport:      transport,
		RequestTimeout: c.RequestTimeout,
		MaxRetries:     c.MaxRetries,
	})
	if err != nil {
		release()
		return nil, err
	}
	watch := &exchangeWatch{backend: b, name: name}
	options := tokensource.Options{
		Exchange:      watch.over(b.counted(c.TokenService, service.Exchange)),
		RefreshBefore: c.RefreshBefore,
		Current:       current,
	}
	b.limits.applyTo(&options, name, c, release)
	return &entry{config: c, source: tokensource.New(options), watch: watch}, nil
}

// nameLocks are one lock for each name in use. The zero value is ready to use.
type nameLocks struct {
	mu     sync.Mutex
	byName map[string]*nameLock
}

type nameLock struct {
	sync.Mutex
	users int
}

// lock waits for name's lock and returns the function that gives it back.
func (l *nameLocks) lock(name string) (unlock func()) {
	l.mu.Lock()
	if l.byName == nil {
		l.byName = make(map[string]*nameLock)
	}
	held, ok := l.byName[name]
	if !ok {
		held = &nameLock{}
		l.byName[name] = held
	}
	held.users++
	l.mu.Unlock()

	held.Lock()
	return func() {
		held.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		held.users--
		if held.users == 0 {
			delete(l.byName, name)
		}
	}
}
