// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	simSeed  = flag.Uint64("seed", 0, "the first life of the simulation; with -lives=1 the only one")
	simLives = flag.Uint64("lives", 500, "how many lives the simulation leads; make test-unit leads 20,000, and 2,000 with the race detector")
	simFor   = flag.Duration("for", 0, "how long the simulation goes on, in place of -lives")
	simTrace = flag.Bool("trace", false, "print what happens in each life")
)

// TestSimulation leads configs on two or three nodes through random lives, in which
// everything fails that can, and holds the invariants of doc.go in each of them, all
// along and at the end. A failure names its seed, which gives the same life again:
//
//	go test ./internal/rotation -run TestSimulation -seed N -lives 1 -trace
func TestSimulation(t *testing.T) {
	var led atomic.Uint64
	begun := time.Now()
	next := func() (seed uint64, more bool) {
		n := led.Add(1) - 1
		if *simFor > 0 {
			return *simSeed + n, time.Since(begun) < *simFor
		}
		return *simSeed + n, n < *simLives
	}
	t.Run("lives", func(t *testing.T) {
		for worker := range simWorkers() {
			t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
				t.Parallel()
				for seed, more := next(); more && !t.Failed(); seed, more = next() {
					synctest.Test(t, func(t *testing.T) { newWorld(t, seed).live() })
				}
			})
		}
	})
	took := time.Since(begun)
	n := led.Load() - uint64(simWorkers())
	t.Logf("%d lives in %s, %.0f a second", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
}

// simWorkers is how many lives are led at a time. A life mostly hands over from one
// goroutine to another, which leaves a processor idle now and then.
func simWorkers() int { return 2 * runtime.GOMAXPROCS(0) }

// world is one life: the storage, the nodes on it, the issuers, and those who disturb
// them. At any instant one goroutine runs, for all wait random times; that makes a
// life the same each time.
type world struct {
	*testing.T
	seed   uint64
	random *rand.Rand
	// mu is held by the goroutine that runs; sleep lets go of it.
	mu     sync.Mutex
	disk   *disk
	nodes  []*node
	leader *process
	// procs are all processes that ever were.
	procs   []*process
	issuers map[string]*issuer
	tokens  map[Secret]*issuerKey
	names   []string
	// bearers are the tokens of the platforms.
	bearers map[Secret]*bearer
	// quiet says that nothing fails any more.
	quiet bool
	// alwaysDue says that rotations get due all the same.
	alwaysDue bool
	// epoch counts the snapshots that were restored.
	epoch     int
	snapshots []map[Ref]entry
	traits    traits
	// broken says which configs have a dead key by their operators' doing.
	broken map[string]bool
	// hurt says which had a key that was dead before it was written, and may have made others
	// with it while the issuer's parts did not agree on that.
	hurt map[string]bool
	// wayOnLost says of which configs a fault may have taken the last key, until a token is stored.
	wayOnLost map[string]bool
	// absent says which have no token because everything was down for long.
	absent  map[string]bool
	failure string
	begun   time.Time
	serial  int
}

// traits are what makes lives differ.
type traits struct {
	faults   float64
	lag      time.Duration
	evil     bool
	restores bool
	grace    time.Duration
	period   time.Duration
	hasty    bool
	shortens bool
	mixesUp  bool
	// noDisabling says that the issuers offer no such thing.
	noDisabling bool
	// platform says that keys work once, and are made with a token.
	platform bool
	// reuse says that such keys are to be used until a rotation is due.
	reuse bool
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		T: t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), issuers: make(map[string]*issuer),
		tokens: make(map[Secret]*issuerKey), bearers: make(map[Secret]*bearer), broken: make(map[string]bool), hurt: make(map[string]bool), absent: make(map[string]bool), wayOnLost: make(map[string]bool), begun: time.Now(),
	}
	w.traits = traits{
		faults: pick(w, 0, 0.05, 0.15, 0.3), lag: pick(w, 0, 5*time.Second, 60*time.Second, 60*time.Second),
		evil: w.chance(0.25), restores: w.chance(0.15), hasty: w.chance(0.7), shortens: w.chance(0.3), mixesUp: w.chance(0.15), noDisabling: w.chance(0.15),
		grace: pick(w, 0, 0, time.Minute, 5*time.Minute, time.Hour), period: pick(w, 0, 20*time.Minute, 2*time.Hour),
	}
	w.disk = &disk{world: w, stored: make(map[Ref]entry), unreadable: make(map[Ref]time.Time), undone: make(map[Ref]bool)}
	for n := range 2 + w.random.IntN(2) {
		w.nodes = append(w.nodes, &node{id: n, clock: time.Duration(w.random.IntN(600)-300) * time.Second})
	}
	for _, name := range []string{"iam-1", "iam-2"} {
		w.issuers[name] = &issuer{world: w, name: name, clock: time.Duration(w.random.IntN(600)-300) * time.Second}
	}
	w.names = []string{"a", "b", "c"}[:1+w.random.IntN(3)]
	w.choosePlatform()
	return w
}

func pick[T any](w *world, of ...T) T { return of[w.random.IntN(len(of))] }

func (w *world) chance(p float64) bool { return w.random.Float64() < p }

// upTo returns a random time, short ones as often as long ones.
func (w *world) upTo(longest time.Duration) time.Duration {
	magnitude := time.Duration(1)
	for range w.random.IntN(6) {
		magnitude *= 10
	}
	return time.Duration(w.random.Int64N(max(int64(longest/magnitude), 1)))
}

// live leads the life and holds its end to the invariants.
func (w *world) live() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.elect(pick(w, w.nodes...))
	w.sleep(time.Second)
	for _, name := range w.names {
		w.createConfig(name)
	}
	for range 20 + w.random.IntN(40) {
		w.disturb()
		longest := time.Minute
		if !w.traits.hasty || w.chance(0.1) {
			longest = time.Hour
		}
		w.sleep(w.upTo(longest))
		if w.failure != "" {
			break
		}
	}
	if w.failure == "" {
		w.runOut()
	}
	w.quiet = true
	for _, p := range w.procs {
		w.kill(p)
	}
	w.sleep(20 * time.Minute)
	if w.failure != "" {
		w.Fatalf("seed %d: after %s: %s", w.seed, time.Since(w.begun), w.failure)
	}
}

// runOut lets everything have its time, undisturbed, with one leader. Operators
// bring a new key where the stored one is dead by their doing.
func (w *world) runOut() {
	w.quiet = true
	w.note("quiet from now on")
	w.sleep(3 * time.Minute)
	if w.leader == nil || w.leader.dead {
		w.elect(w.nodes[0])
	}
	w.sleep(3 * time.Minute)
	for _, name := range w.names {
		w.repair(name)
	}
	w.sleep(3 * 24 * time.Hour)
	if w.failure != "" {
		return
	}
	w.untilIdle()
	w.checkEnd()
	for _, name := range w.names {
		w.checkRotates(name)
	}
	w.sleep(3 * 24 * time.Hour)
	w.untilIdle()
	w.checkEnd()
}

// untilIdle waits for what is under way: tokens get due at any time.
func (w *world) untilIdle() {
	for range 1000 {
		busy := len(w.leader.claims) > 0
		for _, e := range w.disk.stored {
			busy = busy || w.traits.platform && (len(e.rec.Retired) > 0 || e.rec.Candidate != nil)
		}
		if !busy {
			return
		}
		w.sleep(time.Second)
	}
}

func (w *world) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.note("VIOLATION: %s", w.failure)
	}
}

// note prints what happens, if that is asked for.
func (w *world) note(format string, args ...any) {
	if *simTrace {
		fmt.Printf("%12s  %s\n", time.Since(w.begun).Round(time.Microsecond), fmt.Sprintf(format, args...))
	}
}

// sleep waits, and never to the same instant as anybody else.
func (w *world) sleep(d time.Duration) {
	d += time.Duration(w.random.Int64N(1e6)) + 1
	w.mu.Unlock()
	time.Sleep(d)
	w.mu.Lock()
}

// start runs f at an instant of its own.
func (w *world) start(f func()) {
	d := time.Duration(w.random.Int64N(1e6)) + 1
	go func() {
		time.Sleep(d)
		w.mu.Lock()
		defer w.mu.Unlock()
		f()
	}()
}
