// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bench is a config on one node and an issuer, in which nothing happens by chance: the
// model of the simulation with all its faults off, and a kill where a test wants it.
type bench struct{ *world }

func newBench(t *testing.T) *bench {
	t.Helper()
	w := newWorld(t, 0)
	w.traits, w.quiet, w.names = traits{}, true, []string{"a"}
	w.nodes = w.nodes[:1]
	for _, i := range w.issuers {
		i.clock = 0
	}
	return &bench{w}
}

// boot starts a process, which advances all that is stored. The processes before it die.
func (b *bench) boot() *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.procs {
		b.kill(p)
	}
	b.elect(b.nodes[0])
	return b.leader
}

// pass lets time pass.
func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sleep(d)
}

// end ends all processes, and waits for them.
func (b *bench) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.procs {
		b.kill(p)
	}
	b.sleep(time.Hour)
}

// operator has something done at the store.
func (b *bench) operator(do func(p *process) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return do(b.leader)
}

// has stores a config with an imported key, or with a managed one and its identity.
func (b *bench) has(managed bool, grace time.Duration) *issuerKey {
	k := b.issuers["iam-1"].add("by hand", "account", "id-1", managed)
	rec := New("a", k.value)
	if managed {
		rec.Current = b.keyOf(k)
	}
	b.stores(Ref{Config: "a"}, rec, grace)
	return k
}

// keyOf is a key as a record holds it.
func (b *bench) keyOf(k *issuerKey) *Key {
	d := k.details
	return &Key{
		Value: k.value, ID: d.ID, Name: d.Name, Managed: k.managed, CreatedAt: d.CreatedAt,
		Binding: Binding{Issuer: k.name, AccountID: d.AccountID, Identity: d.Identity},
	}
}

func (b *bench) stores(ref Ref, rec Record, grace time.Duration) {
	b.disk.stored[ref] = entry{rec: rec, set: settings{issuer: "iam-1", grace: grace}}
}

func (b *bench) record() Record { return b.disk.stored[Ref{Config: "a"}].rec }

// killAt kills the process at its n-th call or put, before or after its effect.
type killAt struct {
	n     int
	after bool
}

// survives has an effect take place, unless the process is to die before or after it.
func (p *process) survives(effect func() error) bool {
	p.points++
	now := p.killAt != nil && p.points == p.killAt.n
	if !now || p.killAt.after {
		_ = effect()
	}
	if now {
		p.world.kill(p)
	}
	return !p.dead
}

// crashScenario is something that an engine has to do.
type crashScenario struct {
	prepare func(b *bench) (old *issuerKey)
	do      func(b *bench)
	// deleted says that the config is gone at the end; oldLives that the key which it
	// had to begin with is not the engine's to delete.
	deleted, oldLives bool
}

var crashScenarios = map[string]crashScenario{
	"replace": {
		prepare: func(b *bench) *issuerKey { return b.has(false, 0) },
		do: func(b *bench) {
			_, _ = b.leader.engine.Rotate(context.Background(), Ref{Config: "a"}, nil)
		},
	},
	"retire": {
		prepare: func(b *bench) *issuerKey {
			old := b.has(true, 0)
			rec := b.record()
			rec.Retired = []Retired{{Key: *b.keyOf(b.issuers["iam-1"].add("vault-apic-retired", "account", "id-1", true)), Grace: time.Hour}}
			b.stores(Ref{Config: "a"}, rec, 0)
			return old
		},
		do:       func(b *bench) {},
		oldLives: true,
	},
	"import": {
		prepare: func(b *bench) *issuerKey { return b.has(true, time.Minute) },
		do: func(b *bench) {
			value := b.fresh("iam-1", "id-2")
			_ = b.operator(func(p *process) error { return p.write("a", value, nil) })
		},
	},
	"bury": {
		prepare: func(b *bench) *issuerKey { return b.has(true, time.Minute) },
		do: func(b *bench) {
			_ = b.operator(func(p *process) error { return p.deleteConfig("a") })
		},
		deleted: true,
	},
}

// TestCrash_everyPoint kills the process before and after each of its calls and puts, and
// holds what is left once the next process has gone on.
func TestCrash_everyPoint(t *testing.T) {
	for name, s := range crashScenarios {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				reached := false
				for _, after := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d, after its effect %t", n, after), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { reached = s.crash(t, killAt{n, after}) })
					})
				}
				if !reached {
					if n < 4 {
						t.Errorf("only %d points were reached", n)
					}
					return
				}
			}
		})
	}
}

func (s crashScenario) crash(t *testing.T, kill killAt) (reached bool) {
	b := newBench(t)
	old := s.prepare(b)
	p := b.boot()
	p.killAt = &kill
	b.pass(LateWriteTime)
	s.do(b)
	b.pass(7 * 24 * time.Hour)
	reached = p.dead
	b.boot()
	b.pass(LateWriteTime + time.Minute)
	if _, stored := b.disk.stored[Ref{Config: "a"}]; stored && s.deleted {
		s.do(b) // The caller who was told that it failed asks again.
	}
	b.pass(7 * 24 * time.Hour)
	b.end()
	s.requireEnd(t, b, old)
	return reached
}

func (s crashScenario) requireEnd(t *testing.T, b *bench, old *issuerKey) {
	t.Helper()
	if b.failure != "" {
		t.Fatal(b.failure)
	}
	for ref, e := range b.disk.stored {
		if ref.Tombstone != "" || e.rec.Intent != nil || e.rec.Candidate != nil || len(e.rec.Retired) > 0 {
			t.Errorf("%s is left with %s", ref, &e)
		}
	}
	current := b.record().Current
	if s.deleted {
		if current != nil || old.alive() {
			t.Errorf("a config is stored, or its key lives")
		}
		return
	}
	for _, k := range b.issuers["iam-1"].keys {
		if k.managed && k.alive() && k.value != current.Value {
			t.Errorf("key %s lives on", k.details.ID)
		}
	}
	if k := b.tokens[current.Value]; !k.usable() {
		t.Errorf("the key in use, %s, is dead", k.details.ID)
	}
	if s.oldLives != (current.Value == old.value) && s.oldLives {
		t.Errorf("the key in use is %s", current.ID)
	}
}

// TestRotate_anAskerSharesARotation holds that two who ask get one successor.
func TestRotate_anAskerSharesARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		old := b.has(false, time.Hour)
		b.boot()
		b.pass(LateWriteTime + time.Minute)
		answers := make(chan Rotation, 2)
		for range 2 {
			go func() {
				r, err := b.leader.engine.Rotate(t.Context(), Ref{Config: "a"}, nil)
				if err != nil {
					t.Error(err)
				}
				answers <- r
			}()
		}
		first, second := <-answers, <-answers
		if first != second || first.ReplacedID != old.details.ID || len(b.issuers["iam-1"].keys) != 2 {
			t.Errorf("the rotations are %+v and %+v", first, second)
		}
		b.end()
	})
}

// TestRotate_gracePeriod holds how long a replaced key lives, by the config or by the call.
func TestRotate_gracePeriod(t *testing.T) {
	for name, c := range map[string]struct {
		asked *time.Duration
		lives time.Duration
	}{
		"the config's own":       {nil, time.Hour},
		"none, as after a leak":  {new(time.Duration), 0},
		"longer than the config": {new(3 * time.Hour), 3 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				old := b.has(false, time.Hour)
				b.boot()
				b.pass(LateWriteTime + time.Minute)
				if _, err := b.leader.engine.Rotate(t.Context(), Ref{Config: "a"}, c.asked); err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				b.pass(24 * time.Hour)
				if lived := old.deleted.Sub(begun); lived < c.lives-time.Minute || lived > c.lives+time.Minute {
					t.Errorf("it lived for %s", lived)
				}
				if disabled := !old.disabled.IsZero(); disabled != (c.lives > 0) {
					t.Errorf("it was disabled before is %t", disabled)
				}
				b.end()
			})
		})
	}
}

// TestRotate_refusals holds what is refused before anything is made.
func TestRotate_refusals(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(b *bench, k *issuerKey)
		says    string
	}{
		"a locked key": {func(_ *bench, k *issuerKey) { k.details.Locked = true }, "is locked"},
		"a key of another id than it had": {func(b *bench, k *issuerKey) {
			rec := b.record()
			rec.Current = b.keyOf(k)
			k.details.ID = "key-of-another"
			b.stores(Ref{Config: "a"}, rec, 0)
		}, "another id, account or identity"},
		"a key of another identity than it had": {func(b *bench, k *issuerKey) {
			rec := b.record()
			rec.Current = b.keyOf(k)
			k.details.Identity = "id-2"
			b.stores(Ref{Config: "a"}, rec, 0)
		}, "another id, account or identity"},
		"a key that another config holds": {func(b *bench, k *issuerKey) {
			b.stores(Ref{Config: "b"}, New("b", k.value), 0)
		}, `config "b" holds the same api key`},
		"a record that is older than its keys": {func(b *bench, k *issuerKey) {
			b.issuers["iam-1"].add(b.record().prefix()+"since-a", "account", "id-1", true)
			time.Sleep(agreeTime)
		}, "restored from a snapshot"},
		"too many keys that are not deleted": {func(b *bench, k *issuerKey) {
			rec := b.record()
			for n := range MaxRetired {
				left := Retired{Key: *b.keyOf(k), Grace: 24 * 365 * time.Hour}
				left.ID = fmt.Sprint(n)
				rec.Retired = append(rec.Retired, left)
			}
			b.stores(Ref{Config: "a"}, rec, 0)
		}, "5 replaced keys"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				k := b.has(false, 0)
				c.prepare(b, k)
				b.boot()
				b.pass(LateWriteTime + time.Minute)
				before := len(b.issuers["iam-1"].keys)
				_, err := b.leader.engine.Rotate(t.Context(), Ref{Config: "a"}, nil)
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("the error is %v", err)
				}
				if len(b.issuers["iam-1"].keys) != before || !k.alive() {
					t.Error("keys were made or deleted")
				}
				b.end()
			})
		})
	}
}

// TestRotate_settling holds that a process that has just started makes no key but for a
// config that it has created itself.
func TestRotate_settling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.has(false, 0)
		b.boot()
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var goesOn *GoesOnError
		if _, err := b.leader.engine.Rotate(ctx, Ref{Config: "a"}, nil); !errors.As(err, &goesOn) || goesOn.Waiting == nil {
			t.Errorf("the error is %v", err)
		}
		if _, err := b.leader.engine.Rotate(t.Context(), Ref{Config: "a"}, nil); err != nil || time.Since(begun) < LateWriteTime {
			t.Errorf("the error is %v after %s", err, time.Since(begun))
		}
		b.end()
	})
}

// TestRotate_aFreshConfig holds that a config which this process has created does not wait
// for late writes.
func TestRotate_aFreshConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.has(false, 0)
		b.boot().fresh = true
		begun := time.Now()
		if _, err := b.leader.engine.Rotate(t.Context(), Ref{Config: "a"}, nil); err != nil || time.Since(begun) >= LateWriteTime {
			t.Errorf("the error is %v after %s", err, time.Since(begun))
		}
		b.end()
	})
}

// TestRotate_atAnotherAddress holds that a key which was made at one address of its issuer
// is replaced at another, and deleted where it was made.
func TestRotate_atAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.has(false, 0)
		rec := b.record()
		old := b.issuers["iam-1"].add(rec.prefix()+"token-a", "account", "id-1", true)
		rec.Current = b.keyOf(old)
		b.disk.stored[Ref{Config: "a"}] = entry{rec: rec, set: settings{issuer: "iam-1-private"}}
		b.boot()
		b.pass(LateWriteTime + time.Minute)
		if _, err := b.leader.engine.Rotate(t.Context(), Ref{Config: "a"}, nil); err != nil {
			t.Fatal(err)
		}
		b.pass(time.Hour)
		b.end()
		if at := b.record().Current.Binding.Issuer; at != "iam-1-private" || old.alive() || len(b.record().Retired) > 0 {
			t.Errorf("the new key is bound to %s; the old one lives: %t; %s", at, old.alive(), b.record().describe())
		}
	})
}

// lostDisabling is an issuer that disables a key without an answer, and then refuses.
type lostDisabling struct {
	Issuer
	calls *int
}

type lostDisablingSession struct {
	Session
	calls *int
}

func (i lostDisabling) Login(ctx context.Context, at Binding, value Secret) (Session, error) {
	s, err := i.Issuer.Login(ctx, at, value)
	return lostDisablingSession{s, i.calls}, err
}

func (s lostDisablingSession) Disable(ctx context.Context, id string) error {
	if *s.calls++; *s.calls > 1 {
		return refusal("it can't be disabled")
	}
	_ = s.Session.Disable(ctx, id)
	return unavailable(true, 0)
}

// unreachable is an issuer that no login reaches. logins are how many were tried, by the time.
type unreachable struct {
	Issuer
	logins map[time.Time]int
}

func (i unreachable) Login(context.Context, Binding, Secret) (Session, error) {
	i.logins[time.Now()]++
	return nil, unavailable(false, 0)
}

// TestAdvance_failedLoginIsNotRepeated has an issuer be away when many keys are to be deleted.
func TestAdvance_failedLoginIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.has(true, time.Hour)
		rec := b.record()
		for n := range 5 {
			old := b.issuers["iam-1"].add(fmt.Sprint("vault-apic-retired-", n), "account", "id-1", true)
			rec.Retired = append(rec.Retired, Retired{Key: *b.keyOf(old), Grace: time.Hour})
		}
		b.stores(Ref{Config: "a"}, rec, time.Hour)
		p := b.boot()
		b.pass(10 * time.Minute)
		away := unreachable{p, make(map[time.Time]int)}
		p.engine.issuer = away
		b.pass(24 * time.Hour)
		if len(away.logins) == 0 {
			t.Error("no login was tried")
		}
		for at, n := range away.logins {
			if n > 1 {
				t.Errorf("%d logins at %s", n, at)
			}
		}
		b.end()
	})
}

// TestRetire_aRefusedDisabling holds that a key which may be disabled, by a call that was not
// answered, is deleted with the right of another, though a later call is refused.
func TestRetire_aRefusedDisabling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.has(true, time.Hour)
		rec := b.record()
		old := b.issuers["iam-1"].add("vault-apic-retired", "account", "id-1", true)
		rec.Retired = []Retired{{Key: *b.keyOf(old), Grace: time.Hour}}
		b.stores(Ref{Config: "a"}, rec, 0) // What the write replaces is to be deleted at once.
		p, calls := b.boot(), 0
		p.engine.issuer = lostDisabling{p, &calls}
		b.pass(45 * time.Minute)
		value := b.fresh("iam-1", "id-2")
		if err := b.operator(func(p *process) error { return p.write("a", value, nil) }); err != nil || calls != 2 {
			t.Fatalf("%d calls, error %v", calls, err)
		}
		b.pass(24 * time.Hour)
		b.end()
		if old.alive() || len(b.record().Retired) > 0 {
			t.Errorf("it lives on, disabled: %s", b.record().describe())
		}
	})
}

// TestAdvance_panic holds that a panic leaves the claim released and the process alive.
func TestAdvance_panic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.stores(Ref{Config: "a"}, Record{UID: "u", Config: "a", Current: &Key{}, Retired: []Retired{{Key: Key{ID: "k", Value: "v"}}}}, 0)
		p := b.boot()
		p.engine.issuer, p.engine.observe = nil, func(Event) {}
		b.pass(time.Second)
		next, err := p.engine.Advance(t.Context(), Ref{Config: "a"})
		if err == nil || next.IsZero() || len(p.claims) != 0 {
			t.Errorf("next %s, error %v, claims %v", next, err, p.claims)
		}
		b.end()
	})
}

// TestRecover_moreKeysThanOneCreationMakes has an issuer list as many keys for an intent as
// it likes: what is found is stored, so that a long list would fill storage and memory.
func TestRecover_moreKeysThanOneCreationMakes(t *testing.T) {
	for listed, recovered := range map[int]bool{1: true, MaxRetired: true, MaxRetired + 1: false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.has(true, 0)
			rec := b.record()
			rec.Intent = &Intent{Token: "token", Binding: rec.Current.Binding, Since: time.Now()}
			for range listed {
				b.issuers["iam-1"].add(rec.nameOf(*rec.Intent), "account", "id-1", true)
			}
			b.stores(Ref{Config: "a"}, rec, 0)
			b.boot()
			b.pass(time.Hour)
			left := b.record().Retired
			if isLookedFor := slices.ContainsFunc(left, Retired.isLost); isLookedFor == recovered || len(left) > MaxRetired {
				t.Errorf("of %d keys, the one that was asked for is looked for still: %t; %d are retired", listed, isLookedFor, len(left))
			}
			b.end()
		})
	}
}
