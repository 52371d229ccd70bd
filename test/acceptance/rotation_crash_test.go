// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// crash is a fault in the rotation of a config of its own.
type crash struct {
	stepFault
	config string
}

// crashesAt are four for each step, in the order of the documented table's columns.
func crashesAt(steps []step) (crashes []crash) {
	for i, at := range steps {
		for j, f := range []stepFault{{step: at, kill: true}, {step: at}, {step: at, after: true, kill: true}, {step: at, after: true}} {
			crashes = append(crashes, crash{f, fmt.Sprintf("crash-%s-%d-%d", strings.Fields(string(steps[0]))[0], i, j)})
		}
	}
	return crashes
}

// TestRotation_crashMatrix kills the plugin at each step of a rotation, before it takes
// effect and after, or has the step fail. Which key is stored and alive in the end
// is what docs/rotation.md says.
func TestRotation_crashMatrix(t *testing.T) {
	t.Parallel()
	s, gate := newSteppedStack(t)
	s.enableAudit()
	crashes := crashesAt(rotationSteps())
	for _, c := range crashes {
		s.injectCrashes(gate, c)
	}
	cleanups := crashesAt(cleanupSteps())
	for _, kill := range []bool{false, true} {
		s.awaitDeletions()
		s.injectCrashes(gate, slices.DeleteFunc(slices.Clone(cleanups), func(c crash) bool { return c.kill != kill })...)
	}
	crashes = append(crashes, cleanups...)

	s.awaitRecovery(crashes)
	for row := range slices.Chunk(crashes, 4) {
		s.requireDocumentedOutcomes(row)
	}
	s.requireNothingElseStored()
	if len(gate.keys) < len(crashes)+s.sim.Counts().KeysCreated {
		t.Fatalf("only %d keys came by", len(gate.keys))
	}
	log, audit := s.fileContent("vault.log"), s.fileContent("audit.log")
	for key := range gate.keys {
		for what, text := range map[string]string{"the server's log": log, "the audit log": audit} {
			if occurs(text, key) {
				t.Fatalf("%s holds an API key", what)
			}
		}
	}
}

// injectCrashes rotates the configs of some crashes at the same time. The kills among
// them are one: the plugin is killed when all have come to their steps.
func (s *stack) injectCrashes(gate *stepGate, crashes ...crash) {
	s.Helper()
	for _, c := range crashes {
		s.writeRotatable(c.config)
	}
	armed, errs := make([]*armedFault, len(crashes)), make([]error, len(crashes))
	var all sync.WaitGroup
	for i, c := range crashes {
		armed[i] = gate.arm(c.config, c.stepFault)
		all.Go(func() {
			_, errs[i] = s.rotate(c.config)
		})
	}
	for i, f := range armed {
		select {
		case <-f.reached:
		case <-time.After(2 * time.Minute):
			s.Fatalf("%s: the rotation never came to the step", crashes[i])
		}
	}
	if slices.ContainsFunc(crashes, func(c crash) bool { return c.kill }) {
		s.killPlugin()
	}
	for _, f := range armed {
		close(f.killed)
	}
	all.Wait()
	for i, c := range crashes {
		gate.disarm(c.config)
		failed, adopts := errs[i] != nil, slices.Contains(cleanupSteps(), c.step)
		if failed == adopts && !(c.kill && adopts) { // It may end before the kill.
			s.Errorf("%s: the rotation's error is %v", c, errs[i])
		}
	}
}

// writeRotatable writes a config with a key, and an identity, of its own.
func (s *stack) writeRotatable(name string) {
	s.Helper()
	key := "canary-" + rand.Text()
	s.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: identityPrefix + name})
	s.writeConfig(name, map[string]any{"api_key": key, "iam_url": s.service.URL()})
}

// killPlugin returns when another process serves.
func (s *stack) killPlugin() {
	s.Helper()
	killed := s.pluginPIDs()
	for _, pid := range killed {
		s.check(syscall.Kill(pid, syscall.SIGKILL))
	}
	s.eventually("another process serves", func() bool {
		pids := s.pluginPIDs()
		isKilled := func(pid int) bool { return slices.Contains(killed, pid) }
		_, err := s.client.Logical().Read("apic/info")
		return err == nil && len(pids) > 0 && !slices.ContainsFunc(pids, isKilled)
	})
}

// awaitDeletions waits until the plugin's process deletes keys, which it does not in
// its first half minute, and not while it backs off from IAM.
func (s *stack) awaitDeletions() {
	s.Helper()
	probe := "probe-" + strings.ToLower(rand.Text())
	s.writeRotatable(probe)
	_, err := s.rotate(probe)
	s.check(err)
	s.awaitOneKey(identityPrefix + probe)
}

// awaitRecovery waits for all: a plugin watches an interrupted creation for two and a
// half minutes, and believes an issuer's "no such key" of a key that is as old.
func (s *stack) awaitRecovery(crashes []crash) {
	s.Helper()
	began, left := time.Now(), slices.Clone(crashes)
	until(6*time.Minute, nil, func() bool {
		for len(left) > 0 && s.hasRecovered(left[0].config) {
			left = left[1:]
		}
		return len(left) == 0
	})
	s.Logf("all but %d of %d have recovered after %s", len(left), len(crashes), time.Since(began).Round(time.Second))
}

// hasRecovered says whether IAM has just the key that is stored, and nothing is left to
// do.
func (s *stack) hasRecovered(config string) bool {
	s.Helper()
	live := s.liveKeysOf(identityPrefix + config)
	if len(live) != 1 {
		return false
	}
	keys := s.storedKeys(config)
	return keys.Intent == nil && keys.Candidate == nil && len(keys.Retired) == 0 && s.sim.KeyID(string(keys.Current.Value)) == live[0].KeyID
}

// requireDocumentedOutcomes holds a row of the table in docs/rotation.md.
func (s *stack) requireDocumentedOutcomes(crashes []crash) {
	s.Helper()
	row := fmt.Sprintf("| %s |", crashes[0].step)
	for _, c := range crashes {
		s.Run(c.String(), func(t *testing.T) {
			row += " " + s.in(t).outcome(c.config) + " |"
		})
	}
	if !strings.Contains(document(s.T, "rotation.md"), row+"\n") {
		s.Errorf("docs/rotation.md lacks the row\n%s", row)
	}
}

// outcome is which key a config has in the end.
func (s *stack) outcome(config string) string {
	s.Helper()
	live := s.liveKeysOf(identityPrefix + config)
	if !s.hasRecovered(config) {
		status := s.read("apic/status/" + config)
		keys := s.storedKeys(config)
		s.Fatalf("IAM has %d keys; an intent is stored: %t, a candidate: %t, retired keys: %d; the status is %v",
			len(live), keys.Intent != nil, keys.Candidate != nil, len(keys.Retired), status.Data)
	}
	secret := s.write("apic/token/"+config, nil)
	if s.exchangedKey(secret.Data["token_id"].(string)) != live[0].KeyID {
		s.Fatal("the token was issued for another key than the one that IAM has")
	}
	if live[0].CreatedByAPI {
		return "new"
	}
	return "old"
}

// requireNothingElseStored fails if the mount has stored anything but configs.
func (s *stack) requireNothingElseStored() {
	s.Helper()
	listed, err := s.client.Logical().List(s.storedPath())
	s.check(err)
	if got := fmt.Sprint(listed.Data["keys"]); got != "[config/]" {
		s.Errorf("the mount has stored %s", got)
	}
}
