// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"testing"
	"testing/synctest"
	"time"
)

// reuseBench is a bench whose platform lets keys work more than once, and whose config is to
// reuse them for a day.
func reuseBench(t *testing.T, granted, grace time.Duration) *bench {
	b := platformBench(t, granted)
	b.traits.reuse = true
	b.issuers["iam-1"].reusable = true
	ref := Ref{Config: "a"}
	e := b.disk.stored[ref]
	e.set.grace, e.set.period, e.set.rotated = grace, 24*time.Hour, time.Now()
	b.disk.stored[ref] = e
	b.alwaysDue = true
	return b
}

// TestReuse is how often keys are replaced, by what the platform allows.
func TestReuse(t *testing.T) {
	const days = 10
	for name, c := range map[string]struct {
		granted  time.Duration
		reusable bool
		// most is how many keys are in use at most, one after the other.
		most, least int
	}{
		"keys that work more than once":       {365 * 24 * time.Hour, true, days + 1, days - 1},
		"keys that work once":                 {365 * 24 * time.Hour, false, 4*days + 4, 4*days - 4},
		"keys that work for five minutes":     {byHandLife, true, 4*days + 4, 4*days - 4},
		"keys that work once, five minutes":   {byHandLife, false, 4*days + 4, 4*days - 4},
		"keys that live less than the period": {13 * time.Hour, true, 27, 22}, // Each for three quarters of its life.
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := reuseBench(t, c.granted, 0)
				b.issuers["iam-1"].reusable = c.reusable
				b.boot()
				used := make(map[string]bool)
				for range days * 24 * 6 {
					b.pass(10 * time.Minute)
					if !b.record().Token.Lives() {
						t.Fatal("readers have no token")
					}
					if k := b.record().Current; k.Spent {
						used[k.ID] = true
					}
				}
				b.end()
				if n := len(used); n > c.most || c.reusable && c.granted > byHandLife && n < c.least {
					t.Errorf("%d keys were in use in %d days", n, days)
				}
				if b.failure != "" || b.keys() > 2 {
					t.Errorf("%d keys are left; %s", b.keys(), b.failure)
				}
			})
		})
	}
}

// TestReuse_grace is that of the config, or of the call.
func TestReuse_grace(t *testing.T) {
	hour := time.Hour
	for name, c := range map[string]struct {
		asked *time.Duration
		want  time.Duration
	}{"the config's": {nil, 10 * time.Minute}, "the call's": {&hour, time.Hour}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := reuseBench(t, 365*24*time.Hour, 10*time.Minute)
				p := b.boot()
				b.pass(time.Hour)
				before := b.record().Current
				done, err := p.engine.Rotate(t.Context(), Ref{Config: "a"}, c.asked)
				if err != nil || done.ReplacedID != before.ID || done.KeyID != b.record().Current.ID || done.KeyID == before.ID {
					t.Fatalf("rotated is %v, error %v", done, err)
				}
				replaced := b.tokens[before.Value]
				b.pass(c.want - time.Minute)
				if !replaced.alive() {
					t.Error("the replaced key is deleted within its grace period")
				}
				b.pass(2 * time.Minute)
				if replaced.alive() {
					t.Error("the replaced key is not deleted after its grace period")
				}
				b.end()
			})
		})
	}
}

// TestReuse_absence goes on with the key after a token's life, where keys are reused.
func TestReuse_absence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := reuseBench(t, 30*24*time.Hour, 0)
		p := b.boot()
		b.pass(time.Hour)
		b.mu.Lock()
		b.kill(p)
		b.mu.Unlock()
		if away := time.Until(b.record().CanBeAwayUntil()); away < 28*24*time.Hour {
			t.Errorf("the record says that it can be away for %s", away)
		}
		b.pass(28 * 24 * time.Hour)
		b.boot()
		b.pass(LateWriteTime + time.Minute)
		if !b.record().Token.Lives() {
			t.Error("there is no token again")
		}
		b.end()
	})
}

// TestReuse_keyDeletedBehindItsBack is replaced while the current token lives.
func TestReuse_keyDeletedBehindItsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := reuseBench(t, 365*24*time.Hour, 0)
		b.boot()
		b.pass(time.Hour)
		gone := b.tokens[b.record().Current.Value]
		gone.deleted = time.Now()
		b.pass(6 * time.Hour)
		if k := b.record().Current; k.ID == gone.details.ID || !k.Reusable || b.record().Token.isDue() {
			t.Errorf("the current key is %s, reusable %t", k.ID, k.Reusable)
		}
		b.end()
	})
}

// TestReuse_crashAtEveryPoint kills the process before and after each call and put of a
// rotation.
func TestReuse_crashAtEveryPoint(t *testing.T) {
	for n := 1; ; n++ {
		reached := false
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				b := reuseBench(t, 365*24*time.Hour, 10*time.Minute)
				p := b.boot()
				b.pass(20 * time.Hour)
				p.points, p.killAt = 0, &killAt{n, after}
				b.pass(6 * time.Hour)
				if reached = p.dead; reached {
					b.boot()
				}
				p.killAt = nil
				b.pass(time.Hour)
				b.end()
				rec := b.record()
				if b.failure != "" || rec.Intent != nil || rec.Candidate != nil || len(rec.Retired) > 0 || !rec.Token.Lives() {
					t.Errorf("killed at %d, after its effect %t: %s; what is left is %v", n, after, b.failure, b.disk.stored[Ref{Config: "a"}])
				}
				if b.keys() > 2 {
					t.Errorf("killed at %d, after its effect %t: %d keys are left", n, after, b.keys())
				}
			})
		}
		if !reached {
			if n < 12 {
				t.Errorf("only %d points were reached", n)
			}
			return
		}
	}
}

// TestReuse_keepsTheKeyUntilItsSuccessorWorks has the platform make keys that get no token.
func TestReuse_keepsTheKeyUntilItsSuccessorWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := reuseBench(t, 365*24*time.Hour, 10*time.Minute)
		b.issuers["iam-1"].tellsNoEnd = true
		p := b.boot()
		b.pass(time.Hour)
		proven := b.tokens[b.record().Current.Value]
		b.issuers["iam-1"].granted = time.Nanosecond
		if done, err := p.engine.Rotate(t.Context(), Ref{Config: "a"}, nil); err == nil {
			t.Errorf("the rotation is answered with %+v", done)
		}
		for range 7 * 24 {
			b.pass(time.Hour)
			if !b.record().Token.Lives() {
				t.Fatal("readers have no token")
			}
		}
		if !proven.alive() || b.record().Current.Value != proven.value {
			t.Error("the key that works is given up")
		}
		if s := p.engine.Status(Ref{Config: "a"}); s.Failures == 0 {
			t.Error("the status tells of no failure")
		}
		if b.end(); b.keys() > 2 || b.failure != "" {
			t.Errorf("%d keys are left; %s", b.keys(), b.failure)
		}
	})
}

// TestReuse_keyThatEndsBeforeItsPeriod is replaced well before its end, so that nobody needs to be
// there then.
func TestReuse_keyThatEndsBeforeItsPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := reuseBench(t, 30*24*time.Hour, 0)
		ref := Ref{Config: "a"}
		e := b.disk.stored[ref]
		e.set.period = 90 * 24 * time.Hour
		b.disk.stored[ref] = e
		p := b.boot()
		b.pass(29*24*time.Hour + 12*time.Hour)
		if left := time.Until(b.record().CanBeAwayUntil()); left < 7*24*time.Hour {
			t.Errorf("it can be away for %s", left)
		}
		b.mu.Lock()
		b.kill(p)
		b.mu.Unlock()
		b.pass(24 * time.Hour)
		b.boot()
		b.pass(LateWriteTime + time.Hour)
		if !b.record().Token.Lives() {
			t.Error("there is no token again")
		}
		b.end()
	})
}
