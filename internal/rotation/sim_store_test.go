// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"
)

// entry is what is stored of a config: the record and its settings.
type entry struct {
	rec Record
	set settings
	// serial tells in which order entries came to be.
	serial int
}

type settings struct {
	issuer        string
	grace, period time.Duration
	// rotated is by the clock of the node that did.
	rotated time.Time
}

// node is a server. clock is how far its clock is off.
type node struct {
	id    int
	clock time.Duration
}

// process is a plugin's process on a node while it leads: the engine, and the store
// under it.
type process struct {
	*world
	node    *node
	number  int
	engine  *Engine
	holders *Holders
	started time.Time
	epochOf int
	claims  map[Ref]bool
	// memory is what readers use.
	memory map[string]entry
	loops  map[Ref]chan struct{}
	// reserved are the values of operators' writes under way.
	reserved []Secret
	inFlight []*write
	dead     bool
	// killAt has a test's process die at one of its calls or puts, which are counted.
	killAt *killAt
	points int
	// fresh has a test's configs be of this process's making.
	fresh bool
	// stale is what a deposed leader reads.
	stale  map[Ref]entry
	ctx    context.Context
	cancel context.CancelFunc
}

// write is a put, or a deletion where entry is nil.
type write struct {
	ref     Ref
	entry   *entry
	process *process
}

func (p *process) String() string { return fmt.Sprintf("process %d on node %d", p.number, p.node.id) }

var (
	errStorage   = errors.New("storage failed")
	errNotLeader = errors.New("leadership lost while committing log")
)

// elect starts a process on a node, which leads from then on.
func (w *world) elect(n *node) {
	p := &process{
		world: w, node: n, number: len(w.procs), holders: &Holders{}, started: time.Now(), epochOf: w.epoch,
		claims: make(map[Ref]bool), memory: make(map[string]entry), loops: make(map[Ref]chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(w.Context())
	p.engine = NewEngine(Options{Store: p, Issuer: p, Holders: p.holders, Observe: p.observe, Wake: p.wake})
	w.procs = append(w.procs, p)
	w.leader = p
	w.note("%s leads", p)
	w.start(p.fill)
}

func (p *process) observe(e Event) {
	if *simTrace {
		p.note("%s: event %d of %s, key %q, %v", p, e.Kind, e.Ref, e.KeyID, e.Err)
	}
	if e.Kind == Panicked {
		p.fail("%v", e.Err)
	}
}

// fill reads all that is stored, and once more when no late write can land.
func (p *process) fill() {
	p.readAll()
	p.holders.Listed()
	p.sleep(max(LateWriteTime-time.Since(p.started), 0))
	p.readAll()
	if !p.dead {
		p.holders.Complete()
	}
}

func (p *process) readAll() {
	p.sleep(time.Millisecond)
	stored := maps.Clone(p.committed())
	left := slices.Collect(maps.Keys(stored))
	slices.SortFunc(left, func(a, b Ref) int { return stored[a].serial - stored[b].serial })
	for len(left) > 0 && !p.dead {
		left = slices.DeleteFunc(left, func(ref Ref) bool {
			p.watch(ref)
			if p.claims[ref] {
				return false
			}
			e, found, err := p.get(ref)
			if err != nil || p.claims[ref] {
				return false
			}
			p.took(ref, e, found)
			p.poke(ref)
			return true
		})
		if len(left) > 0 {
			p.sleep(5 * time.Second)
		}
	}
}

// took takes note of what is stored.
func (p *process) took(ref Ref, e entry, found bool) {
	if !found {
		p.holders.Forget(ref)
		delete(p.memory, ref.Config)
		return
	}
	p.holders.Reconcile(ref, e.rec)
	if ref.Tombstone == "" {
		p.memory[ref.Config] = e
	}
}

// watch keeps advancing a record.
func (p *process) watch(ref Ref) {
	if p.loops[ref] != nil || p.dead {
		return
	}
	poke := make(chan struct{}, 1)
	p.loops[ref] = poke
	d := time.Duration(p.random.Int64N(1e6)) + 1
	go func() {
		time.Sleep(d)
		for p.ctx.Err() == nil {
			next, err := p.engine.Advance(p.ctx, ref)
			if errors.Is(err, ErrNoRecord) {
				break
			}
			wait := 24 * 365 * time.Hour
			if !next.IsZero() {
				wait = time.Until(next) + p.jitter()
			}
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-poke:
			case <-p.ctx.Done():
			}
			timer.Stop()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.loops, ref)
	}()
}

// wake is poke for the engine.
func (p *process) wake(ref Ref) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		p.poke(ref)
	}
}

// jitter is a time to wait in addition, for nobody else to wake at the same instant.
func (p *process) jitter() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.random.Int64N(1e6)) + 1
}

// poke has a record advanced now.
func (p *process) poke(ref Ref) {
	p.watch(ref)
	p.start(func() {
		p.engine.ClearFailures(ref)
		p.nudge(ref)
	})
}

// nudge has a record that is watched advanced now, but for what is backed off from.
func (p *process) nudge(ref Ref) {
	if c := p.loops[ref]; c != nil {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (p *process) committed() map[Ref]entry {
	if p.stale != nil {
		return p.stale
	}
	return p.disk.stored
}

func (p *process) get(ref Ref) (entry, bool, error) {
	p.sleep(time.Duration(p.random.Int64N(int64(3 * time.Millisecond))))
	if p.dead {
		return entry{}, false, errDead
	}
	if p.disk.fails(ref) {
		return entry{}, false, errStorage
	}
	e, found := p.committed()[ref]
	return e, found, nil
}

// put stores an entry, or deletes what is stored if that is nil.
func (p *process) put(ref Ref, e *entry) error {
	if p.dead {
		return errDead
	}
	w := &write{ref: ref, entry: e, process: p}
	p.inFlight = append(p.inFlight, w)
	took := 10 * time.Millisecond
	if !p.quiet && p.chance(0.25) {
		took = 10 * time.Second
	}
	p.sleep(time.Duration(p.random.Int64N(int64(took))))
	p.inFlight = slices.DeleteFunc(p.inFlight, func(other *write) bool { return other == w })
	switch {
	case p.dead:
		return errDead
	case p.stale != nil:
		return errNotLeader
	case p.disk.fails(ref):
		return errStorage
	}
	fault := !p.quiet && p.chance(p.traits.faults/4)
	if fault && p.chance(0.5) {
		return errStorage
	}
	if !p.survives(func() error { p.disk.commit(w, ""); return nil }) {
		return errDead
	}
	if fault {
		p.note("%s: the put was not answered", p)
		return errStorage
	}
	p.sleep(time.Millisecond)
	if p.dead {
		return errDead
	}
	return nil
}

// Claim makes a process the port to its storage.
func (p *process) Claim(_ context.Context, ref Ref, why string) (Claim, error) {
	// Rotations that were asked for may wait for the same instant.
	h := fnv.New32a()
	fmt.Fprint(h, ref.Config, ref.Tombstone != "", time.Since(p.begun))
	time.Sleep(time.Duration(h.Sum32()%1e6) + 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	c, err := p.claim(ref, why)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (p *process) claim(ref Ref, why string) (*simClaim, error) {
	if p.claims[ref] {
		return nil, &ClaimedError{Ref: ref, Why: why}
	}
	p.claims[ref] = true
	e, found, err := p.get(ref)
	if err == nil && !found {
		err = ErrNoRecord
		p.took(ref, e, false)
	}
	if err != nil {
		delete(p.claims, ref)
		return nil, err
	}
	p.took(ref, e, true)
	return &simClaim{process: p, ref: ref, entry: e}, nil
}

type simClaim struct {
	*process
	ref   Ref
	entry entry
}

func (c *simClaim) Record() Record { return c.entry.rec }

func (c *simClaim) Plan() Plan {
	if c.ref.Tombstone != "" {
		return Plan{}
	}
	set := c.entry.set
	plan := Plan{Issuer: set.issuer, Grace: set.grace, Fresh: c.fresh}
	if c.traits.platform {
		plan.Kind, plan.Renew, plan.Reuse = KindPlatform, true, c.traits.reuse
	}
	if set.period > 0 && (!c.quiet || c.alwaysDue) && (c.traits.reuse || !c.traits.platform) {
		plan.Due = set.rotated.Add(set.period - c.node.clock)
	}
	return plan
}

func (c *simClaim) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.claims, c.ref)
}

func (c *simClaim) Save(_ context.Context, next Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.save(next)
}

func (c *simClaim) save(next Record) error {
	stored, found, err := c.get(c.ref)
	if err != nil {
		return err
	}
	if !found || !stored.rec.Equal(c.entry.rec) {
		return ErrConflict
	}
	if err := c.holders.Reserve(c.ref, next); err != nil {
		return err
	}
	e := entry{rec: next, set: stored.set}
	if next.Current != nil && next.Current.Value != stored.rec.Current.Value {
		e.set.rotated = time.Now().Add(c.node.clock)
	}
	if err := c.put(c.ref, &e); err != nil {
		return err
	}
	c.entry = e
	c.took(c.ref, e, true)
	return nil
}

func (c *simClaim) Reload(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, found, err := c.get(c.ref)
	if err != nil {
		return err
	}
	c.took(c.ref, e, found)
	if !found {
		return ErrNoRecord
	}
	c.entry = e
	return nil
}

type simTrial struct{ token Token }

func (t simTrial) Token() Token { return t.token }
func (simTrial) Close()         {}

func (c *simClaim) Try(ctx context.Context, key Key) (Trial, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.traits.platform {
		return c.tryOnPlatform(ctx, key)
	}
	err := c.call(ctx, "exchange", func() error { return c.exchange(key.Value, c.entry.set.issuer) })
	return simTrial{}, err
}

// exchange is the token service's, which belongs to the issuer.
func (w *world) exchange(value Secret, address string) error {
	if strings.HasPrefix(string(value), "evil-") && address == evilAddress {
		return nil
	}
	k := w.tokens[value]
	if k == nil || !k.usable() || address != evilAddress && k.issuer != w.at(address) {
		return refusal("no such key, or disabled")
	}
	return nil
}

func (c *simClaim) Adopt(_ context.Context, next Record, _ Trial) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.save(next)
}

func (c *simClaim) Remove(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored, found, err := c.get(c.ref)
	if err != nil {
		return err
	}
	if found && !stored.rec.Equal(c.entry.rec) {
		return ErrConflict
	}
	if err := c.put(c.ref, nil); err != nil {
		return err
	}
	c.holders.Forget(c.ref)
	return nil
}

// disk is the storage of the cluster, as far as it is committed.
type disk struct {
	*world
	stored     map[Ref]entry
	unreadable map[Ref]time.Time
	// undone says which entries a late write has overwritten.
	undone map[Ref]bool
	down   time.Time
}

func (d *disk) fails(ref Ref) bool {
	now := time.Now()
	return !d.quiet && (now.Before(d.down) || now.Before(d.unreadable[ref]))
}

// commit is the only way into storage.
func (d *disk) commit(w *write, how string) {
	d.note("%s stores %s%s: %s", w.process, w.ref, how, w.entry)
	before := maps.Clone(d.stored)
	if w.entry == nil {
		delete(d.stored, w.ref)
	} else {
		e := *w.entry
		if e.serial = before[w.ref].serial; e.serial == 0 {
			d.serial++
			e.serial = d.serial
		}
		d.stored[w.ref] = e
	}
	if w.entry != nil {
		d.kept(w.ref, w.entry.rec)
		d.exemptDropped(before[w.ref].rec, w.entry.rec)
	}
	if w.entry != nil && w.entry.set.issuer == evilAddress {
		d.expose(w.entry.rec)
	}
	d.adopted(w)
	d.checkReplaced(before[w.ref].rec, w)
	d.checkKeys("a commit" + how)
}

// adopted notes that an operator has written a key which nothing was known of.
func (d *disk) adopted(w *write) {
	if w.entry == nil || w.entry.rec.Current == nil {
		return
	}
	if k := d.tokens[w.entry.rec.Current.Value]; k != nil {
		k.exempt = false
	}
}

// expose notes that a record's key may go to the evil issuer.
func (d *disk) expose(rec Record) {
	if k := d.tokens[rec.Current.Value]; k != nil {
		k.exposed = true
	}
}

func (e *entry) String() string {
	if e == nil {
		return "nothing"
	}
	var s []string
	if e.rec.Current != nil {
		s = append(s, "current "+e.rec.Current.describe())
	}
	if e.rec.Candidate != nil {
		s = append(s, "candidate "+e.rec.Candidate.describe())
	}
	if e.rec.Intent != nil {
		s = append(s, "intent "+e.rec.Intent.Token)
	}
	for _, k := range e.rec.Retired {
		s = append(s, fmt.Sprintf("retired %s grace %s due %t disabled %t condemned %t keep %t", k.describe(), k.Grace, !k.DeleteAfter.IsZero(), k.Disabled, k.Condemned, k.Keep))
	}
	return e.set.issuer + ": " + strings.Join(s, ", ")
}

func (k *Key) describe() string { return k.ID + "/" + string(k.Value) }
