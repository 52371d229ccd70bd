// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// modelSteps is how long the random scenarios are. A failure names its seed, which gives
// the same scenario again.
const modelSteps = 40

var modelSeeds = flag.Int("scenarios", 8, "how many random scenarios TestRotationModel runs; make test-unit runs 25")

// cutter is a network that kills the mount in the middle of a call.
type cutter struct {
	sim *apicsim.Sim
	cut atomic.Pointer[cut]
}

// cut is one kill to come.
type cut struct {
	// left is how many calls go through before it.
	left  atomic.Int64
	after bool
	kill  func()
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	due := c.cut.Load()
	now := due != nil && due.left.Add(-1) == 0
	if now && !due.after {
		due.kill()
		return
	}
	c.sim.ServeHTTP(w, r)
	if now {
		due.kill()
	}
}

// scenario is a random series of what can happen to a config.
type scenario struct {
	*mount
	random   *rand.Rand
	cutter   *cutter
	imported []string
	// did is what happened, and told are the warnings of keys that are left for good.
	did, told []string
	// unfinished says that a deletion failed.
	unfinished bool
}

// TestRotationModel_oneKeyStoredNoneOrphaned runs configs through random writes,
// rotations, deletions, kills, faults of IAM and of storage, and time, and holds the
// promise of rotation after each.
func TestRotationModel_oneKeyStoredNoneOrphaned(t *testing.T) {
	t.Parallel()
	var created atomic.Int64
	t.Run("scenarios", func(t *testing.T) {
		for seed := range *modelSeeds {
			t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newScenario(t, uint64(seed))
					s.run()
					created.Add(int64(s.sim.Counts().KeysCreated))
				})
			})
		}
	})
	if created.Load() < 3*int64(*modelSeeds) {
		t.Errorf("rotations created only %d keys in all scenarios, so that little was tried", created.Load())
	}
}

func newScenario(t *testing.T, seed uint64) *scenario {
	t.Helper()
	sim := newSim(t)
	c := &cutter{sim: sim}
	m := newPipedMount(t, sim, c)
	m.defaults = map[string]any{"iam_url": m.url}
	return &scenario{mount: m, random: rand.New(rand.NewPCG(seed, 0)), cutter: c}
}

func (s *scenario) run() {
	s.Helper()
	steps := []func(){
		s.writeImportedKey, s.writeKeyBack, s.writeSomethingElse, s.rotateUndisturbed, s.rotateUndisturbed, s.deleteConfig,
		s.killDuring, s.killDuring, s.injectIAMFault, s.injectIAMFault, s.injectStorageFault, s.injectStorageFault, s.letTimePass,
		s.injectLag, s.writeKeyOfAnother, s.shareKey, s.deleteSecond,
	}
	s.writeImportedKey()
	for step := range modelSteps {
		steps[s.random.IntN(len(steps))]()
		if step < modelSteps-1 && s.random.IntN(3) > 0 {
			continue // The next one comes before this one is cleaned up.
		}
		s.finishDeletion()
		s.deleteSecond()
		s.requirePromise()
		if s.Failed() {
			return
		}
	}
}

// note records what happened, for a failure's message.
func (s *scenario) note(format string, args ...any) {
	s.did = append(s.did, fmt.Sprintf(format, args...))
}

// requirePromise holds the invariants once everything had its time.
func (s *scenario) requirePromise() {
	s.Helper()
	s.waitForCleanup()
	defer func() {
		if s.Failed() {
			s.Logf("what happened: %s", strings.Join(s.did, "; "))
		}
	}()
	for _, key := range s.managedLiveKeys() {
		if strings.Contains(strings.Join(s.told, " "), key.ID) {
			s.sim.RevokeKeyID(key.ID) // The operator who was told to delete it does.
		}
	}
	if s.storedKeyID("us-south") == "" {
		for _, key := range s.managedLiveKeys() {
			s.Fatalf("there is no config, and IAM holds the key %s that rotation made, which nobody was told", key.Name)
		}
		return
	}
	s.must(logical.UpdateOperation, "token/us-south", nil)
	for _, key := range s.managedLiveKeys() {
		if key.KeyID != s.storedKeyID("us-south") {
			s.Fatalf("IAM holds the key %s that rotation made and nobody stores", key.Name)
		}
	}
	s.requireNothingPending()
}

// try makes a request that may fail.
func (s *scenario) try(op logical.Operation, path string, data map[string]any) (failed bool) {
	s.Helper()
	resp, err := s.do(op, path, data)
	if err == nil && resp != nil && resp.IsError() {
		err = resp.Error()
	}
	if err != nil {
		requireNoKey(s.T, err.Error())
		s.note("%s %s failed: %v", op, path, err)
		return true
	}
	if resp != nil {
		s.told = append(s.told, slices.DeleteFunc(resp.Warnings, func(warning string) bool { return !strings.Contains(warning, "If it is still there, delete it") })...)
	}
	s.note("%s %s", op, path)
	return false
}

func (s *scenario) writeImportedKey() {
	s.imported = append(s.imported, s.newKey())
	s.writeKeyBack()
}

// writeKeyBack writes the last imported key, which may be gone.
func (s *scenario) writeKeyBack() { s.writeKey("us-south", s.imported[len(s.imported)-1]) }

// writeKey creates the config or updates it, as Vault decides by asking whether there is
// one.
func (s *scenario) writeKey(name, key string) {
	op, path, data := logical.Operation(logical.UpdateOperation), "config/"+name, s.configData(map[string]any{"api_key": key})
	_, exists, err := s.backend.HandleExistenceCheck(context.Background(), &logical.Request{Operation: logical.CreateOperation, Path: path, Data: data, Storage: s.storage})
	if err != nil {
		s.note("asking whether there is a config %s failed: %v", name, err)
		return
	}
	if !exists {
		op = logical.CreateOperation
	}
	s.try(op, path, data)
}

func (s *scenario) writeSomethingElse() {
	s.try(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": s.random.IntN(3), "rotation_period": []string{"0", "6h"}[s.random.IntN(2)]})
}

func (s *scenario) rotateUndisturbed() {
	grace := []string{"0s", "2m", "5m", "3h"}[s.random.IntN(4)]
	s.note("rotate with a grace of %s", grace)
	s.try(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": grace})
}

// writeKeyOfAnother writes a key of an identity that has no right to the others.
func (s *scenario) writeKeyOfAnother() {
	key := fmt.Sprintf("%s-%d", testKey, len(s.sim.Keys()))
	s.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: fmt.Sprintf("IBMid-%d", 1+s.random.IntN(2))})
	s.imported = append(s.imported, key)
	s.note("of another identity:")
	s.writeKeyBack()
}

// shareKey has a second config use an imported key, which may be in use, in
// its grace period, or gone.
func (s *scenario) shareKey() {
	key := s.imported[s.random.IntN(len(s.imported))]
	s.writeKey("eu-de", key)
}

// deleteSecond deletes the second config, which keeps its keys from being
// deleted.
func (s *scenario) deleteSecond() {
	s.Helper()
	for range 100 {
		if s.storedConfigOf("eu-de") == nil {
			return
		}
		if s.try(logical.DeleteOperation, "config/eu-de", nil) {
			time.Sleep(time.Minute)
		}
	}
	s.Fatalf("the second config cannot be deleted; what happened: %s", strings.Join(s.did, "; "))
}

// injectLag has a part of IAM lag behind for a while.
func (s *scenario) injectLag() {
	by := time.Duration(1+s.random.IntN(60)) * time.Second
	lag := apicsim.Lag{Every: 1 + s.random.IntN(2)}
	part := s.random.IntN(4)
	*[]*time.Duration{&lag.Tokens, &lag.List, &lag.Get, &lag.Delete}[part] = by
	s.note("part %d of IAM lags by %s, each %d. of it", part, by, lag.Every)
	s.sim.SetLag(lag)
	s.disturbed()
	s.ticks(time.Duration(s.random.IntN(3)) * time.Minute)
	s.sim.SetLag(apicsim.Lag{})
}

// deleteConfig asks for a deletion, which may fail after it has deleted the key at
// IAM. A second request completes it.
func (s *scenario) deleteConfig() {
	s.unfinished = s.try(logical.DeleteOperation, "config/us-south", nil)
}

func (s *scenario) finishDeletion() {
	if !s.unfinished {
		return
	}
	s.waitForCleanup()
	if s.deleteConfig(); s.unfinished {
		s.Fatal("a deletion failed undisturbed")
	}
}

// disturbed is one of the things that change keys.
func (s *scenario) disturbed() {
	switch s.random.IntN(6) {
	case 0:
		s.writeImportedKey()
	case 1:
		s.deleteConfig()
	default:
		s.rotateUndisturbed()
	}
}

// killDuring kills the plugin at some call, of storage or of the network.
func (s *scenario) killDuring() {
	if s.random.IntN(2) == 0 {
		n := 1 + s.random.Int64N(14)
		s.note("kill at storage call %d", n)
		s.storage.severAt.Store(s.storage.calls.Load() + n)
	} else {
		// The storage and the network of this process: a call may end after the next one has begun.
		storage, line := s.storage, s.line
		due := &cut{after: s.random.IntN(2) == 0, kill: func() {
			storage.severed.Store(true)
			line.Sever()
		}}
		n := 1 + s.random.Int64N(8)
		s.note("kill at network call %d, after its effect %v", n, due.after)
		due.left.Store(n)
		s.cutter.cut.Store(due)
	}
	s.disturbed()
	s.cutter.cut.Store(nil)
	s.crash()
	s.initializeBackend()
}

func (s *scenario) injectIAMFault() {
	fault := apicsim.KeyFault{
		Call:  []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallDelete, apicsim.CallDetails, apicsim.CallList}[s.random.IntN(4)],
		After: s.random.IntN(2) == 0,
		Kind:  []apicsim.FaultKind{apicsim.KindStatus, apicsim.KindReset, apicsim.KindHang}[s.random.IntN(3)],
		Times: 1 + s.random.IntN(3),
	}
	if fault.Kind == apicsim.KindStatus {
		fault.Status = []int{500, 503, 400, 403, 429}[s.random.IntN(5)]
		// A service that refuses has had no effect.
		fault.After = fault.After && fault.Status >= 500
	}
	s.note("fault of IAM: %s, after %v, %s %d, %d times", fault.Call, fault.After, fault.Kind, fault.Status, fault.Times)
	s.sim.InjectKeyFault(fault)
	s.disturbed()
	s.sim.ClearKeyFaults()
}

func (s *scenario) injectStorageFault() {
	n := 1 + s.random.Int64N(14)
	s.storage.failLate.Store(s.random.IntN(2) == 0)
	s.note("fault of storage call %d, late %v", n, s.storage.failLate.Load())
	s.storage.failNth(n)
	s.disturbed()
	s.storage.failNth(-1)
}

func (s *scenario) letTimePass() {
	hours := time.Duration(1+s.random.IntN(10)) * time.Hour
	s.note("%s pass", hours)
	s.ticks(hours)
}
