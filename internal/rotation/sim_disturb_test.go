// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// disturb has one thing happen.
func (w *world) disturb() {
	if w.leader != nil {
		w.checkReaders()
	}
	happenings := []func(){
		w.rotate, w.rotate, w.rotate, w.writeFresh, w.writeOther, w.writeTwice, w.takeBack, w.takeBack, w.deleteConfig,
		w.changeAddress, w.killLeader, w.killLeader, w.depose, w.depose, w.outage, w.losesEntry, w.changeSettings,
	}
	if w.traits.evil {
		happenings = append(happenings, w.goEvil, w.goEvil)
	}
	if w.traits.restores {
		happenings = append(happenings, w.snapshot, w.restore)
	}
	if w.traits.platform {
		happenings = w.onPlatform()
	}
	pick(w, happenings...)()
}

// kill ends a process. A put in flight may land later, while the next process on
// the node reads and writes.
func (w *world) kill(p *process) {
	if p.dead {
		return
	}
	w.note("%s is killed", p)
	p.dead = true
	p.cancel()
	p.engine.cancel()
	for _, flying := range p.inFlight {
		if p.stale != nil || w.quiet || w.chance(0.5) {
			continue
		}
		after := time.Duration(w.random.Int64N(int64(20 * time.Second)))
		w.start(func() {
			w.sleep(after)
			// The leader that it was given to may have been deposed since.
			if w.epoch == p.epochOf && (w.leader == nil || w.leader.node == p.node) {
				w.disk.commit(flying, ", late")
			}
		})
	}
}

// killLeader kills the plugin, or the whole node.
func (w *world) killLeader() {
	p := w.leader
	if p == nil {
		return
	}
	if w.chance(0.3) {
		w.commitInFlight(p)
		p.stale = maps.Clone(w.disk.stored)
		w.kill(p)
		w.next(p.node)
		return
	}
	w.kill(p)
	w.leader = nil
	w.sleep(time.Duration(w.random.Int64N(int64(3 * time.Second))))
	w.elect(p.node)
}

// depose has another node lead. The process that led runs on for a while.
func (w *world) depose() {
	p := w.leader
	if p == nil {
		return
	}
	w.note("%s is deposed", p)
	w.commitInFlight(p)
	p.stale = maps.Clone(w.disk.stored)
	zombie := w.upTo(90 * time.Second)
	w.start(func() {
		w.sleep(zombie)
		w.kill(p)
	})
	w.next(p.node)
}

// commitInFlight is for the writes that the next leader finds in its log.
func (w *world) commitInFlight(p *process) {
	for _, flying := range p.inFlight {
		if w.chance(0.5) {
			w.disk.commit(flying, ", though its leader is deposed")
		}
	}
}

// next elects another node.
func (w *world) next(old *node) {
	w.leader = nil
	w.sleep(time.Duration(w.random.Int64N(int64(10 * time.Second))))
	others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == old })
	w.elect(pick(w, others...))
}

func (w *world) outage() { w.disk.down = time.Now().Add(w.upTo(5 * time.Minute)) }

func (w *world) losesEntry() {
	w.disk.unreadable[Ref{Config: pick(w, w.names...)}] = time.Now().Add(w.upTo(time.Hour))
}

// operate runs an operator's request at the leader.
func (w *world) operate(do func(p *process) error, what string) {
	p := w.leader
	if p == nil {
		return
	}
	w.start(func() {
		w.note("an operator wants to %s", what)
		if err := do(p); err != nil {
			w.note("an operator could not %s: %v", what, err)
		}
	})
}

func (w *world) rotate() {
	name := pick(w, w.names...)
	grace := pick(w, nil, new(time.Duration), new(2*time.Minute))
	w.operate(func(p *process) error {
		ctx, cancel := context.WithTimeout(p.ctx, 50*time.Second)
		defer cancel()
		w.mu.Unlock()
		_, err := p.engine.Rotate(ctx, Ref{Config: name}, grace)
		w.mu.Lock()
		return err
	}, "rotate "+name)
}

func (w *world) newSettings() settings {
	return settings{issuer: pick(w, "iam-1", "iam-2"), grace: w.traits.grace, period: w.traits.period, rotated: time.Now()}
}

// fresh makes a key that nobody uses yet.
func (w *world) fresh(address, identity string) Secret {
	return w.at(address).add("by hand", "account", identity, false).value
}

func (w *world) createConfig(name string) {
	if _, ok := w.disk.stored[Ref{Config: name}]; ok {
		return
	}
	set := w.newSettings()
	value := w.fresh(set.issuer, pick(w, "id-1", "id-2"))
	w.operate(func(p *process) error { return p.write(name, value, &set) }, "create "+name)
}

// write is the config store's: it changes the key, the settings, or both.
func (p *process) write(name string, value Secret, set *settings) error {
	ref := Ref{Config: name}
	c, err := p.claim(ref, "written")
	if errors.Is(err, ErrNoRecord) && set != nil && value != "" {
		p.claims[ref] = true
		c, err = &simClaim{process: p, ref: ref, entry: entry{rec: New(name, value), set: *set}}, nil
	}
	if err != nil {
		return err
	}
	defer func() {
		delete(p.claims, ref)
		p.poke(ref)
	}()
	next := c.entry
	if set != nil {
		next.set = *set
	}
	var token Token
	if value != "" {
		if token, err = p.verify(value, next.set.issuer); err != nil {
			return err
		}
		if next.rec, err = next.rec.Import(value, next.set.grace); err != nil {
			return err
		}
	}
	if token.Value != "" {
		next.rec = next.rec.WithToken(token)
	}
	if err := p.holders.Reserve(ref, next.rec); err != nil {
		return err
	}
	if k := p.tokens[value]; k != nil && !k.alive() && !p.disk.isCondemned(value) {
		p.hurt[name] = true
		p.broken[name] = true // It was dead, and the engine has forgotten it, before the operator wrote it.
	}
	p.reserved = append(p.reserved, value)
	err = p.put(ref, &next)
	p.reserved = slices.DeleteFunc(p.reserved, func(v Secret) bool { return v == value })
	if err == nil {
		p.took(ref, next, true)
	}
	return err
}

// anyConfig returns a config that is stored.
func (w *world) anyConfig() (string, entry, bool) {
	name := pick(w, w.names...)
	e, ok := w.disk.stored[Ref{Config: name}]
	if !ok {
		w.createConfig(name)
	}
	return name, e, ok
}

// writeFresh writes another key of the same issuer, writeOther one of another.
func (w *world) writeFresh() {
	if name, e, ok := w.anyConfig(); ok && e.set.issuer != evilAddress {
		value := w.fresh(e.set.issuer, pick(w, "id-1", "id-2"))
		w.operate(func(p *process) error { return p.write(name, value, nil) }, "write another key into "+name)
	}
}

func (w *world) writeOther() {
	if name, _, ok := w.anyConfig(); ok {
		set := w.newSettings()
		value := w.fresh(set.issuer, pick(w, "id-1", "id-2"))
		w.operate(func(p *process) error { return p.write(name, value, &set) }, "write another issuer and key into "+name)
	}
}

// writeTwice writes the key of one config into another.
func (w *world) writeTwice() {
	_, from, ok := w.anyConfig()
	if !ok || from.set.issuer == evilAddress {
		return
	}
	w.writeInto(pick(w, w.names...), from.rec.Current.Value, from.set)
}

func (w *world) writeInto(name string, value Secret, set settings) {
	w.operate(func(p *process) error { return p.write(name, value, &set) }, "write the key "+string(value)+" into "+name)
}

// takeBack writes a key that was replaced, into its own config or another.
func (w *world) takeBack() {
	_, from, ok := w.anyConfig()
	if !ok || len(from.rec.Retired) == 0 {
		return
	}
	k := pick(w, from.rec.Retired...)
	for _, r := range from.rec.Retired {
		if r.Condemned && w.chance(0.7) {
			k = r // That is the one to be refused.
		}
	}
	if k.Value == "" || k.Binding.Issuer == evilAddress {
		return
	}
	set := from.set
	set.issuer = k.Binding.Issuer
	name := from.rec.Config
	if w.chance(0.5) {
		name = pick(w, w.names...)
	}
	w.writeInto(name, k.Value, set)
}

func (w *world) changeSettings() {
	if name, e, ok := w.anyConfig(); ok {
		set := e.set
		set.grace = pick(w, 0, time.Minute, 10*time.Minute)
		w.operate(func(p *process) error { return p.write(name, "", &set) }, "change settings of "+name)
	}
}

// changeAddress goes to the issuer's other address.
func (w *world) changeAddress() {
	if name, e, ok := w.anyConfig(); ok && e.set.issuer != evilAddress {
		set := e.set
		set.issuer = pick(w, "", "-private")
		set.issuer = w.at(e.set.issuer).name + set.issuer
		w.operate(func(p *process) error { return p.write(name, "", &set) }, "change the address of "+name)
	}
}

// goEvil has a config use the evil issuer for a while, with its key or another.
func (w *world) goEvil() {
	name, e, ok := w.anyConfig()
	if !ok {
		return
	}
	set, value := e.set, Secret("")
	back := set.issuer
	if back == evilAddress {
		back = pick(w, "iam-1", "iam-2")
	}
	set.issuer = evilAddress
	if w.chance(0.5) {
		value = "evil-key"
	}
	w.broken[name] = true
	w.operate(func(p *process) error {
		if err := p.write(name, value, &set); err != nil {
			return err
		}
		p.poke(Ref{Config: name})
		w.sleep(w.upTo(10 * time.Minute))
		set.issuer = back
		return p.write(name, w.fresh(back, pick(w, "id-1", "id-2")), &set)
	}, "use the evil issuer for "+name)
}

func (w *world) deleteConfig() {
	name := pick(w, w.names...)
	w.operate(func(p *process) error { return p.deleteConfig(name) }, "delete "+name)
}

func (p *process) deleteConfig(name string) error {
	ref := Ref{Config: name}
	c, err := p.claim(ref, "deleted")
	if err != nil {
		return err
	}
	defer func() {
		delete(p.claims, ref)
		p.poke(ref)
	}()
	if tomb := c.entry.rec.Bury(); !tomb.Empty() {
		p.serial++
		grave := Ref{Config: name, Tombstone: fmt.Sprintf("%s-%d", tomb.UID, p.serial)}
		if p.claims[grave] {
			return &ClaimedError{Ref: grave, Why: "cleaned up"}
		}
		p.claims[grave] = true
		err := p.holders.Reserve(grave, tomb)
		if err == nil {
			err = p.put(grave, &entry{rec: tomb})
		}
		if err == nil {
			p.took(grave, entry{rec: tomb}, true)
		}
		delete(p.claims, grave)
		p.poke(grave)
		if err != nil {
			return err
		}
	}
	if err := p.put(ref, nil); err != nil {
		return err
	}
	p.took(ref, entry{}, false)
	return nil
}

func (w *world) snapshot() { w.snapshots = append(w.snapshots, maps.Clone(w.disk.stored)) }

// restore restores a snapshot: all processes start anew, and the keys that were made
// since are nobody's from then on.
func (w *world) restore() {
	if len(w.snapshots) == 0 || w.leader == nil {
		return
	}
	w.note("a snapshot is restored")
	w.epoch++
	for _, p := range w.procs {
		w.kill(p)
	}
	w.disk.stored = maps.Clone(pick(w, w.snapshots...))
	for _, k := range w.tokens {
		k.exempt = k.managed && k.alive() && !w.disk.recorded(k)
	}
	for _, name := range w.names {
		w.broken[name] = true
	}
	w.leader = nil
	w.sleep(time.Second)
	w.elect(pick(w, w.nodes...))
}

// repair brings a working key into a config whose key is dead by its operators' doing.
func (w *world) repair(name string) {
	e, ok := w.disk.stored[Ref{Config: name}]
	if w.traits.platform && ok && w.goesOn(name) {
		w.broken[name] = false
		return
	}
	if !ok || !w.traits.platform && e.set.issuer != evilAddress && w.exchange(e.rec.Current.Value, e.set.issuer) == nil {
		w.broken[name] = false
		return
	}
	if !w.broken[name] {
		return // That is for checkEnd to find.
	}
	set := w.newSettings()
	for try := 0; ; try++ {
		err := w.leader.write(name, w.fresh(set.issuer, "id-1"), &set)
		if err == nil {
			break
		}
		if try == 100 {
			w.fail("config %s can't be written: %v", name, err)
			return
		}
		w.sleep(10 * time.Second)
	}
	w.broken[name] = false
}
