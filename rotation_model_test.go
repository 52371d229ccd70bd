// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
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

// modelSteps and modelSeeds are how long and how many the random lives are. A
// failure names its seed, which gives the same life again.
const (
	modelSteps = 40
	modelSeeds = 25
)

// cutter is a network that kills the mount in the middle of a call.
type cutter struct {
	sim *apicsim.Sim
	// left is how many calls go through before the kill; a negative number is none.
	left  atomic.Int64
	after atomic.Bool
	kill  func()
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := c.left.Add(-1) == 0
	if now && !c.after.Load() {
		c.kill()
		return
	}
	c.sim.ServeHTTP(w, r)
	if now {
		c.kill()
	}
}

// life is a config's random life.
type life struct {
	*mount
	random  *rand.Rand
	cutter  *cutter
	brought []string
	// did is what happened, and told are the warnings of keys that are left for good.
	did, told []string
	// unfinished says that a deletion failed.
	unfinished bool
}

// TestRotationModel_oneKeyStoredNoneOrphaned leads configs through random
// writes, rotations, deletions, kills, faults of IAM and of storage, and time, and
// holds the promise of rotation after each.
func TestRotationModel_oneKeyStoredNoneOrphaned(t *testing.T) {
	created := 0
	for seed := range uint64(modelSeeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLife(t, seed)
				l.lead()
				created += l.sim.Counts().KeysCreated
			})
		})
	}
	if created < 3*modelSeeds {
		t.Errorf("rotations created only %d keys in all lives, so that little was tried", created)
	}
}

func newLife(t *testing.T, seed uint64) *life {
	t.Helper()
	sim, err := apicsim.New(apicsim.Options{Keys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{sim: sim}
	c.left.Store(-1)
	m := newPipedMount(t, sim, c)
	m.defaults = map[string]any{"iam_url": m.url}
	c.kill = func() {
		m.storage.severed.Store(true)
		m.line.Sever()
	}
	return &life{mount: m, random: rand.New(rand.NewPCG(seed, 0)), cutter: c}
}

func (l *life) lead() {
	l.Helper()
	happenings := []func(){
		l.writeBroughtKey, l.writeKeyBack, l.writeSomethingElse, l.rotateUndisturbed, l.rotateUndisturbed, l.deleteConfig,
		l.beKilledDuring, l.beKilledDuring, l.sufferIAM, l.sufferIAM, l.sufferStorage, l.sufferStorage, l.letTimePass,
		l.sufferLag, l.writeKeyOfAnother, l.shareKey, l.deleteSecond,
	}
	l.writeBroughtKey()
	for step := range modelSteps {
		happenings[l.random.IntN(len(happenings))]()
		if step < modelSteps-1 && l.random.IntN(3) > 0 {
			continue // The next one comes before this one is cleaned up.
		}
		l.finishDeletion()
		l.deleteSecond()
		l.requirePromise()
		if l.Failed() {
			return
		}
	}
}

// did notes what happened, for whoever reads a failure.
func (l *life) note(format string, args ...any) {
	l.did = append(l.did, fmt.Sprintf(format, args...))
}

// requirePromise holds the invariants once everything had its time.
func (l *life) requirePromise() {
	l.Helper()
	l.waitForCleanup()
	defer func() {
		if l.Failed() {
			l.Logf("what happened: %s", strings.Join(l.did, "; "))
		}
	}()
	for _, key := range l.managedLiveKeys() {
		if strings.Contains(strings.Join(l.told, " "), key.ID) {
			l.sim.RevokeKeyID(key.ID) // Whoever was told to delete it does.
		}
	}
	if l.storedKeyID("us-south") == "" {
		for _, key := range l.managedLiveKeys() {
			l.Fatalf("there is no config, and IAM holds the key %s that rotation made, which nobody was told", key.Name)
		}
		return
	}
	l.must(logical.UpdateOperation, "token/us-south", nil)
	for _, key := range l.managedLiveKeys() {
		if key.KeyID != l.storedKeyID("us-south") {
			l.Fatalf("IAM holds the key %s that rotation made and nobody stores", key.Name)
		}
	}
	l.requireNothingPending()
}

// try makes a request that may fail.
func (l *life) try(op logical.Operation, path string, data map[string]any) (failed bool) {
	l.Helper()
	resp, err := l.do(op, path, data)
	if err == nil && resp != nil && resp.IsError() {
		err = resp.Error()
	}
	if err != nil {
		requireNoKey(l.T, err.Error())
		l.note("%s %s failed: %v", op, path, err)
		return true
	}
	if resp != nil {
		l.told = append(l.told, slices.DeleteFunc(resp.Warnings, func(warning string) bool { return !strings.Contains(warning, "If it is still there, delete it") })...)
	}
	l.note("%s %s", op, path)
	return false
}

func (l *life) writeBroughtKey() {
	l.brought = append(l.brought, l.newKey())
	l.writeKeyBack()
}

// writeKeyBack writes the key that somebody brought last, which may be gone.
func (l *life) writeKeyBack() { l.writeKey("us-south", l.brought[len(l.brought)-1]) }

// writeKey creates the config or updates it, as Vault decides by asking whether there is
// one.
func (l *life) writeKey(name, key string) {
	op, path, data := logical.Operation(logical.UpdateOperation), "config/"+name, l.configData(map[string]any{"api_key": key})
	_, exists, err := l.backend.HandleExistenceCheck(context.Background(), &logical.Request{Operation: logical.CreateOperation, Path: path, Data: data, Storage: l.storage})
	if err != nil {
		l.note("asking whether there is a config %s failed: %v", name, err)
		return
	}
	if !exists {
		op = logical.CreateOperation
	}
	l.try(op, path, data)
}

func (l *life) writeSomethingElse() {
	l.try(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": l.random.IntN(3), "rotation_period": []string{"0", "6h"}[l.random.IntN(2)]})
}

func (l *life) rotateUndisturbed() {
	grace := []string{"0s", "2m", "5m", "3h"}[l.random.IntN(4)]
	l.note("rotate with a grace of %s", grace)
	l.try(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": grace})
}

// writeKeyOfAnother writes a key of an identity that has no right to the others.
func (l *life) writeKeyOfAnother() {
	key := fmt.Sprintf("%s-%d", testKey, len(l.sim.Keys()))
	l.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: fmt.Sprintf("IBMid-%d", 1+l.random.IntN(2))})
	l.brought = append(l.brought, key)
	l.note("of another identity:")
	l.writeKeyBack()
}

// shareKey has a second config take a key that somebody brought, which may be in use, in
// its grace period, or gone.
func (l *life) shareKey() {
	key := l.brought[l.random.IntN(len(l.brought))]
	l.writeKey("eu-de", key)
}

// deleteSecond ends the life of the second config, which keeps its keys from being
// deleted.
func (l *life) deleteSecond() {
	for l.storedConfigOf("eu-de") != nil {
		if l.try(logical.DeleteOperation, "config/eu-de", nil) {
			time.Sleep(time.Minute)
		}
	}
}

// sufferLag has a part of IAM lag behind for a while.
func (l *life) sufferLag() {
	by := time.Duration(1+l.random.IntN(60)) * time.Second
	lag := apicsim.Lag{Every: 1 + l.random.IntN(2)}
	part := l.random.IntN(4)
	*[]*time.Duration{&lag.Tokens, &lag.List, &lag.Get, &lag.Delete}[part] = by
	l.note("part %d of IAM lags by %s, each %d. of it", part, by, lag.Every)
	l.sim.SetLag(lag)
	l.disturbed()
	l.ticks(time.Duration(l.random.IntN(3)) * time.Minute)
	l.sim.SetLag(apicsim.Lag{})
}

// deleteConfig asks for a deletion, which may fail after it has deleted the key at
// IAM. Whoever asks again gets it done.
func (l *life) deleteConfig() {
	l.unfinished = l.try(logical.DeleteOperation, "config/us-south", nil)
}

func (l *life) finishDeletion() {
	if !l.unfinished {
		return
	}
	l.waitForCleanup()
	if l.deleteConfig(); l.unfinished {
		l.Fatal("a deletion failed undisturbed")
	}
}

// disturbed is one of the things that change keys.
func (l *life) disturbed() {
	switch l.random.IntN(6) {
	case 0:
		l.writeBroughtKey()
	case 1:
		l.deleteConfig()
	default:
		l.rotateUndisturbed()
	}
}

// beKilledDuring kills the plugin at some call, of storage or of the network.
func (l *life) beKilledDuring() {
	if l.random.IntN(2) == 0 {
		n := 1 + l.random.Int64N(14)
		l.note("kill at storage call %d", n)
		l.storage.severAt.Store(l.storage.calls.Load() + n)
	} else {
		l.cutter.after.Store(l.random.IntN(2) == 0)
		n := 1 + l.random.Int64N(8)
		l.note("kill at network call %d, after its effect %v", n, l.cutter.after.Load())
		l.cutter.left.Store(n)
	}
	l.disturbed()
	l.cutter.left.Store(-1)
	l.crash()
	l.initializeBackend()
}

func (l *life) sufferIAM() {
	fault := apicsim.KeyFault{
		Call:  []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallDelete, apicsim.CallDetails, apicsim.CallList}[l.random.IntN(4)],
		After: l.random.IntN(2) == 0,
		Kind:  []apicsim.FaultKind{apicsim.KindStatus, apicsim.KindReset, apicsim.KindHang}[l.random.IntN(3)],
		Times: 1 + l.random.IntN(3),
	}
	if fault.Kind == apicsim.KindStatus {
		fault.Status = []int{500, 503, 400, 403, 429}[l.random.IntN(5)]
		// A service that refuses has had no effect.
		fault.After = fault.After && fault.Status >= 500
	}
	l.note("fault of IAM: %s, after %v, %s %d, %d times", fault.Call, fault.After, fault.Kind, fault.Status, fault.Times)
	l.sim.InjectKeyFault(fault)
	l.disturbed()
	l.sim.ClearKeyFaults()
}

func (l *life) sufferStorage() {
	n := 1 + l.random.Int64N(14)
	l.storage.failLate.Store(l.random.IntN(2) == 0)
	l.note("fault of storage call %d, late %v", n, l.storage.failLate.Load())
	l.storage.failNth(n)
	l.disturbed()
	l.storage.failNth(-1)
}

func (l *life) letTimePass() {
	hours := time.Duration(1+l.random.IntN(10)) * time.Hour
	l.note("%s pass", hours)
	l.ticks(hours)
}
