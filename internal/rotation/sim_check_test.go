// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// all yields the keys that a record names.
func (r Record) all() (keys []Key) {
	for _, k := range r.unretired() {
		keys = append(keys, *k)
	}
	for _, k := range r.Retired {
		keys = append(keys, k.Key)
	}
	return keys
}

// recorded says whether storage knows of a key, by itself or by the intent to make it.
func (d *disk) recorded(k *issuerKey) bool {
	for _, e := range d.stored {
		if e.rec.Intent != nil && strings.HasPrefix(k.details.Name, e.rec.namePrefixOf(*e.rec.Intent)) {
			return true
		}
		if e.rec.hasLost(k.details.Name) {
			return true
		}
		for _, recorded := range e.rec.all() {
			if recorded.ID == k.details.ID && recorded.Binding.Issuer != "" && d.at(recorded.Binding.Issuer) == k.issuer {
				return true
			}
		}
	}
	return false
}

// checkKeys holds invariants 2 and 4: at the issuers live, of our making, only keys that
// storage knows of. Those that were made after a snapshot that was restored, and those
// that a process from before the restoration makes, are exempt: they are to be left
// alone.
func (d *disk) checkKeys(when string) {
	for _, k := range d.managedKeys() {
		if !d.recorded(k) {
			d.fail("after %s, key %s of %s lives and nothing stored knows it", when, k.details.ID, k.name)
		}
	}
}

// isCondemned says whether some record has decided to delete the key.
func (d *disk) isCondemned(value Secret) bool {
	for _, e := range d.stored {
		if slices.ContainsFunc(e.rec.Retired, func(r Retired) bool { return r.Value == value && r.Condemned }) {
			return true
		}
	}
	return false
}

// checkReplaced notes when a key ceases to be current, and holds that a config is
// given no key that the engine has deleted.
func (d *disk) checkReplaced(before Record, w *write) {
	var now *Key
	var after Record
	if w.entry != nil {
		after = w.entry.rec
		now = after.Current
	}
	d.undone[w.ref] = d.undone[w.ref] || w.process.dead
	if before.Current == nil || now != nil && now.Value == before.Current.Value {
		return
	}
	if k := d.tokens[before.Current.Value]; k != nil {
		k.replaced[w.ref], k.graces[w.ref] = time.Now(), 0
		for _, r := range after.Retired {
			if r.Value == k.value {
				k.graces[w.ref] = r.Grace
			}
		}
	}
}

// checkHarm holds invariants 3 and 7 as something is done to a key that nobody can use
// after it: no config holds it, in storage, in a write under way, or in the memory of the
// leader; and what is stored has decided it.
func (p *process) checkHarm(k *issuerKey, done string) {
	if p.epochOf < p.epoch {
		return // It was decided before a snapshot was restored, and on its way.
	}
	if k.exempt {
		p.fail("%s: key %s is %s, of which nothing is known since a snapshot was restored", p, k.details.ID, done)
	}
	decided := false
	for ref, e := range p.disk.stored {
		for _, held := range e.rec.unretired() {
			if held.Value == k.value {
				p.fail("%s: key %s is %s, and %s holds it", p, k.details.ID, done, ref)
			}
		}
		for _, r := range e.rec.Retired {
			mine := r.ID == k.details.ID && p.at(r.Binding.Issuer) == k.issuer && !r.Keep
			decided = decided || mine && (r.Condemned || r.Disabled && done == "disabled")
			if r.Value == k.value && e.rec.isNeeded(r) {
				p.fail("%s: key %s is %s, and %s needs it to delete others", p, k.details.ID, done, ref)
			}
		}
	}
	if !decided {
		p.fail("%s: key %s is %s, and nothing stored has decided that", p, k.details.ID, done)
	}
	for _, other := range p.procs {
		if other.dead {
			continue
		}
		for _, v := range other.reserved {
			if v == k.value && other == p {
				p.fail("%s: key %s is %s while it is written into a config", p, k.details.ID, done)
			}
		}
		for name, e := range other.memory {
			if other == p.leader && e.rec.Current.Value == k.value && !p.broken[name] {
				p.fail("%s: key %s is %s, and the readers of %s use it", p, k.details.ID, done, name)
			}
		}
	}
}

// checkDeletion holds that a key had its grace, in true time, reckoned from when its
// replacement was decided. Where a late write has undone a replacement, that cannot be
// told.
func (p *process) checkDeletion(k *issuerKey) {
	if p.epoch > 0 {
		return
	}
	for ref, at := range k.replaced {
		decided := slices.ContainsFunc(p.disk.stored[ref].rec.Retired, func(r Retired) bool { return r.Value == k.value && r.Condemned })
		if lived := time.Since(at); decided && !p.disk.undone[ref] && lived < k.graces[ref]-30*time.Second {
			p.fail("%s: key %s is deleted %s after %s replaced it, with a grace of %s", p, k.details.ID, lived, ref, k.graces[ref])
		}
	}
}

// checkReaders holds invariant 7 as far as an exchange of the leader's can tell. A new
// key may not be known everywhere yet.
func (w *world) checkReaders() {
	if w.traits.platform {
		w.checkTokens()
		return
	}
	for name, e := range w.leader.memory {
		k := w.tokens[e.rec.Current.Value]
		if k == nil || w.broken[name] || k.usable() || time.Since(k.created) < time.Minute {
			continue
		}
		w.fail("%s: readers of %s use key %s, which is dead", w.leader, name, k.details.ID)
	}
}

// checkEnd holds what is promised once everything had its time: each config has one
// key, which works, and nothing is pending but what cannot be done.
func (w *world) checkEnd() {
	staying := make(map[string]bool)
	for ref, e := range w.disk.stored {
		status := w.leader.engine.Status(ref)
		if ref.Tombstone == "" && w.traits.platform {
			w.checkWayOn(ref, e.rec)
			for _, k := range e.rec.all() {
				staying[k.ID] = true
			}
		} else if ref.Tombstone == "" {
			k := w.tokens[e.rec.Current.Value]
			if k == nil || !k.usable() {
				w.fail("at the end, the key of %s is dead", ref)
				continue
			}
			staying[k.details.ID] = true
		}
		for _, r := range e.rec.Retired {
			staying[r.ID] = true
			if !w.mayStay(ref, r, status) {
				w.fail("at the end, %s has the retired key %s: %s; %v", ref, r.ID, &e, status)
			}
		}
		if e.rec.Candidate != nil || e.rec.Intent != nil && !w.intentMayStay(ref, *e.rec.Intent, status) {
			w.fail("at the end, a rotation of %s is unfinished: %s; %v", ref, &e, status)
		}
		if ref.Tombstone != "" && (e.rec.Empty() || w.disk.stored[Ref{Config: ref.Config}].rec.UID == e.rec.UID) {
			w.fail("at the end, there is an empty tombstone of %s, or one of a config that is stored", ref)
		}
	}
	for _, k := range w.managedKeys() {
		if !staying[k.details.ID] && !w.disk.recorded(k) {
			w.fail("at the end, key %s of %s lives on", k.details.ID, k.name)
		}
	}
}

// checkRotates holds that a config can still be rotated in the end. Exempt are those of
// whose keys the issuer says something else than before, or that share them, and all after a
// snapshot was restored, for then a rotation is refused rightly.
func (w *world) checkRotates(name string) {
	ref := Ref{Config: name}
	e, ok := w.disk.stored[ref]
	if !ok || w.rightsMayBeLost(ref) || w.traits.evil {
		return
	}
	if w.traits.platform {
		w.checkRenews(ref)
		return
	}
	if _, shared := w.leader.holders.OtherHolder(ref, e.rec.Current.Value); shared {
		return
	}
	w.mu.Unlock()
	_, err := w.leader.engine.Rotate(w.Context(), ref, nil)
	w.mu.Lock()
	if err != nil && w.failure == "" {
		w.fail("at the end, %s can't be rotated: %v", ref, err)
	}
}

// rightsMayBeLost says whether what has the right to clean up after a config can be gone
// by no fault of the engine's: it was deleted or disabled after a snapshot that was
// restored; it was dead when an operator wrote it; or the issuer told its id wrong.
func (w *world) rightsMayBeLost(ref Ref) bool {
	return w.epoch > 0 || w.traits.mixesUp || w.hurt[ref.Config]
}

// intentMayStay says whether a creation can rightly not be cleared up: it was the evil
// issuer's, or the right to look is lost, and the status says so.
func (w *world) intentMayStay(ref Ref, i Intent, status Status) bool {
	return i.Binding.Issuer == evilAddress || w.rightsMayBeLost(ref) && isRefused(status.Last)
}

// mayStay says whether a retired key can rightly not be deleted: it is the evil issuer's,
// or kept for what is; another config holds it; or the right to delete it is lost. The status
// says so.
func (w *world) mayStay(ref Ref, r Retired, status Status) bool {
	if r.Binding.Issuer == evilAddress || slices.ContainsFunc(r.Elsewhere, func(b Binding) bool { return b.Issuer == evilAddress }) {
		return true
	}
	if r.Keep {
		return w.rightsMayBeLost(ref)
	}
	if w.traits.reuse && w.at(r.Binding.Issuer).now().Before(r.DeleteAfter.Add(time.Minute)) {
		return true // Rotations go on, each with its grace.
	}
	if r.Binding.Kind == KindPlatform && w.lacksToken(w.disk.stored[ref].rec, r) {
		return true
	}
	if k := w.tokens[r.Value]; k != nil && k.details.ID != r.ID {
		return true // Its id was never told.
	}
	for _, c := range status.Cleanups {
		var held *HeldError
		if c.KeyID == r.ID && (errors.As(c.Reason, &held) && held.By != ref || w.rightsMayBeLost(ref) && isRefused(c.Reason)) {
			return true
		}
	}
	return false
}
