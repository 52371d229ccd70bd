// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
)

// ErrNotAllRead says that it is not known yet who else holds a key: not all configs
// were read since the start, or some can't be.
var ErrNotAllRead = errors.New("not all configs of this mount could be read yet, and one of them may hold the key; try again later")

// HeldError says that another record holds the key that was to be deleted or
// replaced.
type HeldError struct{ By Ref }

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s holds the same api key; give each config a key of its own", e.By)
}

// TakenError says that another record is deleting the key that was to be held.
type TakenError struct{ By Ref }

func (e *TakenError) Error() string {
	return fmt.Sprintf("the api key was replaced in %s and is being deleted at its issuer; write another one", e.By)
}

// Unwrap makes it an ErrCondemned.
func (e *TakenError) Unwrap() error { return ErrCondemned }

// digest is the first half of a key's SHA-256 digest, which is enough to tell keys apart and takes half
// of the memory.
type digest [sha256.Size / 2]byte

func digestOf(value Secret) digest {
	sum := sha256.Sum256([]byte(value))
	return digest(sum[:len(digest{})])
}

// use is what a record does with a key, as bits.
type use uint8

const (
	holds use = 1 << iota
	// dooms is what a record does that disables or deletes the key.
	dooms
	// willHold and willDoom are the same of a record whose Save is under way or in doubt.
	willHold
	willDoom
)

// Holders knows which record of a mount holds which key, so that no key is deleted
// that another one holds, and none is taken that is being deleted. The zero value is
// ready to use; it knows of nothing, and that it does.
type Holders struct {
	mu    sync.Mutex
	uses  map[digest]users
	byRef map[Ref][]digest
	// listed and complete are what Listed and Complete have said.
	listed, complete bool
}

// Listed says that every record has been read since the start of the process, so that
// all keys whose deletion may be under way are known. Until then no key is imported.
func (h *Holders) Listed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listed = true
}

// Complete says that every record has been read, once more if need be, when
// LateWriteTime had passed since the start of the process, so that all keys that are held
// are known. Until then none is deleted. A record that turns out to have changed is to be
// advanced again.
func (h *Holders) Complete() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listed, h.complete = true, true
}

// Reserve is called before next is stored. It fails, and nothing may be stored, if next
// takes a key that another record dooms, or one that may be. What it marks stays
// until Reconcile.
func (h *Holders) Reserve(ref Ref, next Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var marked []digest
	for _, value := range next.held() {
		d := digestOf(value)
		if h.uses[d].of(ref)&(holds|willHold) != 0 {
			continue
		}
		if by, ok := h.other(d, ref, dooms|willDoom); ok {
			return &TakenError{By: by}
		}
		if next.Current != nil && next.Current.Value == value && !h.listed {
			return ErrNotAllRead
		}
		if h.uses[d].of(ref)&dooms != 0 && !h.complete {
			return ErrNotAllRead // A process before this one may be disabling it.
		}
		marked = append(marked, d)
	}
	for _, d := range marked {
		h.mark(ref, d, willHold)
	}
	return nil
}

// Condemn marks a key that ref is about to disable or delete, or fails. From then on
// no other record takes it. The mark stays until Reconcile.
func (h *Holders) Condemn(ref Ref, value Secret) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if value == "" {
		return nil // Nobody can hold what nobody knows.
	}
	if !h.complete {
		return ErrNotAllRead
	}
	d := digestOf(value)
	if by, ok := h.other(d, ref, holds|willHold); ok {
		return &HeldError{By: by}
	}
	h.mark(ref, d, willDoom)
	return nil
}

// OtherHolder returns a record other than ref that holds the key.
func (h *Holders) OtherHolder(ref Ref, value Secret) (Ref, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.other(digestOf(value), ref, holds|willHold)
}

// Reconcile says what is stored: after a put that succeeded, and after a read while no
// Save is under way or in doubt. It clears the marks of Reserve and Condemn.
func (h *Holders) Reconcile(ref Ref, stored Record) { h.set(ref, stored, 0) }

// Seen says what a read found while a Save was under way or in doubt, which may yet
// store what Reserve and Condemn have marked: their marks stay. The record is empty if
// nothing was found.
func (h *Holders) Seen(ref Ref, stored Record) { h.set(ref, stored, willHold|willDoom) }

// set replaces what a record does with keys, but for the uses that are to be kept.
func (h *Holders) set(ref Ref, stored Record, keep use) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clear(ref, keep)
	for _, value := range stored.held() {
		h.mark(ref, digestOf(value), holds)
	}
	for _, k := range stored.Retired {
		if k.Value != "" && (k.Condemned || k.Disabled) {
			h.mark(ref, digestOf(k.Value), dooms)
		}
	}
}

// Forget says that nothing is stored under ref.
func (h *Holders) Forget(ref Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clear(ref, 0)
}

func (h *Holders) other(d digest, ref Ref, any use) (Ref, bool) { return h.uses[d].other(ref, any) }

func (h *Holders) mark(ref Ref, d digest, u use) {
	if h.uses == nil {
		h.uses, h.byRef = make(map[digest]users), make(map[Ref][]digest)
	}
	present := h.uses[d].of(ref)
	if present == 0 {
		h.byRef[ref] = append(h.byRef[ref], d)
	}
	h.uses[d] = h.uses[d].with(ref, present|u)
}

func (h *Holders) clear(ref Ref, keep use) {
	var kept []digest
	for _, d := range h.byRef[ref] {
		left := h.uses[d].of(ref) & keep
		if left != 0 {
			kept = append(kept, d)
		}
		h.uses[d] = h.uses[d].with(ref, left)
		if h.uses[d].none() {
			delete(h.uses, d)
		}
	}
	if kept == nil {
		delete(h.byRef, ref)
		return
	}
	h.byRef[ref] = kept
}

// users are the records that do something with one key. There is one as a rule, and there may be
// a hundred thousand keys, so that the first has its place outside of the map.
type users struct {
	first  Ref
	use    use
	others map[Ref]use
}

func (u users) none() bool { return u.use == 0 && len(u.others) == 0 }

// of is what a record does, 0 for nothing.
func (u users) of(ref Ref) use {
	if u.first == ref {
		return u.use
	}
	return u.others[ref]
}

// with is what there is when a record does that instead.
func (u users) with(ref Ref, does use) users {
	_, isOther := u.others[ref]
	switch {
	case u.first == ref || u.use == 0 && !isOther:
		u.first, u.use = ref, does
	case does == 0:
		delete(u.others, ref)
	default:
		if u.others == nil {
			u.others = make(map[Ref]use)
		}
		u.others[ref] = does
	}
	return u
}

// other is a record beside ref that does any of that.
func (u users) other(ref Ref, any use) (Ref, bool) {
	if u.first != ref && u.use&any != 0 {
		return u.first, true
	}
	for other, does := range u.others {
		if other != ref && does&any != 0 {
			return other, true
		}
	}
	return Ref{}, false
}
