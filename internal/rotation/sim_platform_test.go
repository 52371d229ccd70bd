// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// The lives here are led on platforms, whose keys work once and are made with a token.

const (
	bearerLife = 8 * time.Hour
	// byHandLife is how long a key lives that an operator makes.
	byHandLife = 5 * time.Minute
)

// bearer is a token of a platform.
type bearer struct {
	issuer   *issuer
	identity string
	expires  time.Time
}

// choosePlatform makes some lives platforms'. It has a source of its own, so that the other
// lives are led as they would be without.
func (w *world) choosePlatform() {
	random := rand.New(rand.NewPCG(w.seed, 2))
	if random.Float64() >= 0.3 {
		return
	}
	w.traits.platform, w.traits.noDisabling = true, true
	w.traits.evil, w.traits.mixesUp = false, false
	lives := []time.Duration{byHandLife, byHandLife, 12 * time.Hour, 365 * 24 * time.Hour}
	for _, name := range []string{"iam-1", "iam-2"} {
		w.issuers[name].granted = lives[random.IntN(len(lives))]
		w.issuers[name].reusable = random.Float64() < 0.2
		w.issuers[name].tellsNoEnd = random.Float64() < 0.4
	}
	if w.traits.reuse = random.Float64() < 0.4; w.traits.reuse {
		w.traits.grace = min(w.traits.grace, 5*time.Minute)
		for _, name := range []string{"iam-1", "iam-2"} {
			w.issuers[name].reusable = random.Float64() < 0.7
		}
	}
}

// limit gives a new key the life that its issuer grants.
func (i *issuer) limit(k *issuerKey) {
	k.life = byHandLife
	if k.managed {
		k.life = i.granted
	}
	if !i.tellsNoEnd {
		k.details.ExpiresAt = k.details.CreatedAt.Add(k.life)
	}
}

// onPlatform are the things that happen there.
func (w *world) onPlatform() []func() {
	happenings := []func(){
		w.read, w.read, w.read, w.read, w.writeFresh, w.deleteConfig, w.killLeader, w.killLeader, w.killLeader,
		w.depose, w.depose, w.outage, w.losesEntry, w.changeSettings, w.pass, w.pass, w.away, w.revoke,
	}
	if w.traits.restores {
		happenings = append(happenings, w.snapshot, w.restore)
	}
	return happenings
}

// pass lets some hours pass, in which tokens get due.
func (w *world) pass() { w.sleep(w.upTo(10 * time.Hour)) }

// away has everything down for hours. A config whose token and key end meanwhile is its
// operators' to repair.
func (w *world) away() {
	p := w.leader
	if p == nil {
		return
	}
	w.note("all is down")
	w.kill(p)
	w.leader = nil
	w.sleep(w.upTo(20 * time.Hour))
	for _, name := range w.names {
		if e, ok := w.disk.stored[Ref{Config: name}]; ok && !w.hasWayOn(e.rec) {
			w.broken[name] = true
		}
		w.absent[name] = true
	}
	w.elect(p.node)
}

// hasWayOn says whether a record's token lives for a while, or one of its keys.
func (w *world) hasWayOn(rec Record) bool {
	if rec.Token.Lives() && time.Until(rec.Token.ExpiresAt) > 10*time.Minute {
		return true
	}
	return slices.ContainsFunc(rec.unretired(), func(k *Key) bool {
		at := w.tokens[k.Value]
		return at != nil && at.alive() && at.usable() && at.life-time.Since(at.created) > 10*time.Minute
	})
}

// revoke has an administrator delete a key of the engine's behind its back.
func (w *world) revoke() {
	for _, k := range w.managedKeys() {
		if w.chance(0.5) {
			w.note("an administrator deletes %s", k.details.ID)
			k.deleted = time.Now()
			break
		}
	}
	for _, name := range w.names {
		if e, ok := w.disk.stored[Ref{Config: name}]; ok && !w.hasWayOn(e.rec) {
			w.broken[name] = true
		}
	}
}

// read has a reader ask for a token, or for one of its own.
func (w *world) read() {
	name, dedicated := pick(w, w.names...), w.chance(0.3)
	w.operate(func(p *process) error { return p.renew(name, dedicated) }, "read a token of "+name)
}

func (p *process) renew(name string, dedicated bool) error {
	have := ""
	if e := p.memory[name]; e.rec.Token != nil {
		have = e.rec.Token.ID
	}
	ctx, cancel := context.WithTimeout(p.ctx, 80*time.Second)
	defer cancel()
	p.mu.Unlock()
	_, err := p.engine.Renew(ctx, Ref{Config: name}, have, dedicated)
	p.mu.Lock()
	p.nudge(Ref{Config: name}) // The schedule sees what was stored.
	return err
}

// verify gets a token with a key that an operator brings.
func (p *process) verify(value Secret, address string) (token Token, err error) {
	err = p.call(p.ctx, "verify", func() error {
		if !p.traits.platform {
			return p.exchange(value, address)
		}
		var err error
		token, err = p.grant(value, address)
		return err
	})
	return token, err
}

// grant is the platform's exchange.
func (w *world) grant(value Secret, address string) (Token, error) {
	k := w.tokens[value]
	if k == nil || !k.usable() || k.issuer != w.at(address) {
		return Token{}, refusal("no such key, or it was used or has expired")
	}
	k.used = true
	w.serial++
	now := time.Now()
	t := Token{
		Value: Secret(fmt.Sprintf("token-%d", w.serial)), ID: fmt.Sprint(w.serial), At: Binding{Kind: KindPlatform, Issuer: address},
		IssuedAt: now, DueAt: now.Add(bearerLife * 3 / 4), ExpiresAt: now.Add(bearerLife),
	}
	w.bearers[t.Value] = &bearer{issuer: k.issuer, identity: k.details.Identity, expires: t.ExpiresAt}
	w.note("%s grants %s for %s", k.name, t.Value, k.details.ID)
	return t, nil
}

// tryOnPlatform is a claim's exchange. A key is stored as spent before it is sent.
func (c *simClaim) tryOnPlatform(ctx context.Context, key Key) (Trial, error) {
	stored := c.disk.stored[c.ref].rec
	isSpent := slices.ContainsFunc(stored.all(), func(k Key) bool { return k.Value == key.Value && k.Spent })
	if !isSpent && c.stale == nil && !c.dead && !c.disk.undone[c.ref] && c.epochOf == c.epoch {
		c.fail("%s: the key %s is sent, and is not stored as spent", c.process, key.ID)
	}
	var token Token
	err := c.call(ctx, "exchange", func() error {
		var err error
		token, err = c.grant(key.Value, c.entry.set.issuer)
		if err == nil {
			c.mayLoseWayOn() // If the token is not stored.
		}
		return err
	})
	if k := c.tokens[key.Value]; isRefused(err) && k != nil && k.usable() {
		c.mayLoseWayOn() // If the key ends before anyone asks again.
	}
	if err != nil {
		return nil, err
	}
	return simTrial{token}, nil
}

// mayLoseWayOn takes note that a config without a token may have lost its last key to a fault.
func (c *simClaim) mayLoseWayOn() {
	if !c.disk.stored[c.ref].rec.Token.Lives() {
		c.wayOnLost[c.ref.Config] = true
	}
}

// kept takes note of a token that was stored.
func (w *world) kept(ref Ref, rec Record) {
	if rec.Token.Lives() {
		delete(w.wayOnLost, ref.Config)
	}
}

// resume is Login with a token.
func (p *process) resume(i *issuer, token Secret) (Session, error) {
	b := p.bearers[token]
	if b == nil || b.issuer != i {
		p.fail("%s: something is sent to %s as a token that is none of its own", p, i.name)
		return nil, errDead
	}
	as := &issuerKey{issuer: i, details: Details{AccountID: "account", Identity: b.identity}}
	return &simSession{process: p, issuer: i, key: as, bearer: b}, nil
}

func (s *simSession) hasEnded() bool { return s.bearer != nil && !time.Now().Before(s.bearer.expires) }

// checkTokens holds that readers have a token that lives.
func (w *world) checkTokens() {
	for name, e := range w.leader.memory {
		if e.rec.Token.Lives() {
			w.absent[name] = false
		} else if !w.broken[name] && !w.absent[name] && !w.wayOnLost[name] {
			w.fail("%s: readers of %s have no token: %s", w.leader, name, &e)
		}
	}
}

// checkWayOn holds what is promised once everything had its time.
func (w *world) checkWayOn(ref Ref, rec Record) {
	if !rec.Token.Lives() {
		w.fail("at the end, %s has no token, and %v", ref, w.leader.engine.Status(ref))
		return
	}
	mine := 0
	for _, k := range w.managedKeys() {
		if b := w.bearers[rec.Token.Value]; rec.knows(k.details.ID) && b.identity == k.details.Identity && b.issuer == k.issuer {
			mine++
		}
	}
	if mine > 2 {
		w.fail("at the end, %s has %d keys", ref, mine)
	}
}

// checkRenews holds that a config still gets tokens in the end.
func (w *world) checkRenews(ref Ref) {
	for _, dedicated := range []bool{true, false} {
		err := w.leader.renew(ref.Config, dedicated)
		for goesOn := (*GoesOnError)(nil); errors.As(err, &goesOn); {
			err = w.leader.renew(ref.Config, dedicated) // The key is not known everywhere yet.
		}
		if err != nil && w.failure == "" {
			w.fail("at the end, %s gets no token: %v", ref, err)
		}
	}
}

// goesOn says whether a config gets tokens by itself.
func (w *world) goesOn(name string) bool {
	if w.leader.memory[name].rec.Token.Lives() || w.leader.renew(name, false) == nil {
		return true
	}
	w.broken[name] = w.broken[name] || w.wayOnLost[name]
	return false
}

// exemptDropped notes which keys are given up that nothing may delete, and whose end nobody was
// told: nothing more can be asked of the engine.
func (w *world) exemptDropped(before, after Record) {
	for _, r := range before.Retired {
		if !before.Brief || !r.ExpiresAt.IsZero() || slices.ContainsFunc(after.Retired, r.isSame) || !w.lacksToken(before, r) {
			continue
		}
		for _, k := range w.managedKeys() {
			if k.details.ID == r.ID || r.isLost() && strings.HasPrefix(k.details.Name, r.Name) {
				k.exempt = true
			}
		}
	}
}

// lacksToken says whether nothing that a record has may delete a platform's key.
func (w *world) lacksToken(rec Record, r Retired) bool {
	for _, t := range []*Token{rec.Token, r.Bearer} {
		if t.Lives() && w.bearers[t.Value].identity == r.Binding.Identity && w.bearers[t.Value].issuer == w.at(r.Binding.Issuer) {
			return false
		}
	}
	return true
}
