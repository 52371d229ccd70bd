// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"slices"
	"time"
)

// DueAt is when an Advance has something to do for the record, as far as can be told
// without one: at once if something is unfinished, or else when the plan says so; zero
// is never.
func (r Record) DueAt(plan Plan) time.Time {
	if r.Candidate != nil || r.Intent != nil || len(r.Retired) > 0 || r.Current == nil {
		return time.Now()
	}
	if !plan.Renew {
		return plan.Due
	}
	if r.Token.isDue() || r.wantsReserve() {
		return time.Now()
	}
	due := r.Token.DueAt
	for _, at := range []time.Time{plan.Due, r.replaceReusedBy()} {
		if plan.Reuse && !at.IsZero() && at.Before(due) {
			due = at
		}
	}
	return due
}

// ManagedIDs are the issuer's ids of the keys that a rotation made, and of those that
// one replaced.
func (r Record) ManagedIDs() []string {
	var ids []string
	for _, k := range r.unretired() {
		if k.Managed {
			ids = append(ids, k.ID)
		}
	}
	for _, k := range r.Retired {
		if !k.Keep && !k.isLost() {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// Move returns the record after somebody who may do that has said that an issuer is
// found at another address, or with another CA: all keys that were bound to it are.
func (r Record) Move(from, to, caCert string) Record {
	move := func(b *Binding) {
		if b.Issuer == from {
			b.Issuer, b.CACert = to, caCert
		}
	}
	moved := r.clone()
	for _, k := range []**Key{&moved.Current, &moved.Candidate} {
		if *k != nil {
			key := **k
			move(&key.Binding)
			key.Elsewhere = moveAll(key.Elsewhere, move)
			*k = &key
		}
	}
	if moved.Intent != nil {
		intent := *moved.Intent
		move(&intent.Binding)
		moved.Intent = &intent
	}
	moved.Token = moveToken(moved.Token, move)
	for i := range moved.Retired {
		move(&moved.Retired[i].Binding)
		moved.Retired[i].Elsewhere = moveAll(moved.Retired[i].Elsewhere, move)
		moved.Retired[i].Bearer = moveToken(moved.Retired[i].Bearer, move)
	}
	return moved
}

func moveToken(t *Token, move func(*Binding)) *Token {
	if t == nil {
		return nil
	}
	moved := *t
	move(&moved.At)
	return &moved
}

func moveAll(bindings []Binding, move func(*Binding)) []Binding {
	moved := slices.Clone(bindings)
	for i := range moved {
		move(&moved[i])
	}
	return moved
}

// IsListed says whether Listed was called.
func (h *Holders) IsListed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.listed
}

// IsAsked says whether a rotation that was asked for is under way.
func (e *Engine) IsAsked(ref Ref) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, asked := e.flights[ref]
	return asked
}
