// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// mostAlive is how many keys may be alive while one is rotated again and again: the one
// in use, and those that are to be deleted, of which the plugin allows five.
const mostAlive = 4

// TestRotation_fiftyUnderLoadFailNoRead rotates while 200 clients read.
func TestRotation_fiftyUnderLoadFailNoRead(t *testing.T) {
	t.Parallel()
	const clients, rotations = 200, 50
	s := newRaftStack(t)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL()})
	_, err := s.rotate("us-south")
	s.check(err)
	identity := s.awaitOneKey("").IAMID
	stop := s.crowd(clients, 200*time.Millisecond, "us-south")
	for range rotations - 1 {
		_, err := s.rotate("us-south")
		s.check(err)
		s.eventually("replaced keys are deleted", func() bool { return len(s.liveKeysOf(identity)) <= mostAlive })
	}
	readings := stop()
	requireAllAnswered(t, readings)
	s.awaitOneKey(identity)
	counts := s.sim.Counts()
	if counts.KeysCreated != rotations || counts.KeysDeleted != rotations {
		t.Errorf("IAM created %d keys and deleted %d", counts.KeysCreated, counts.KeysDeleted)
	}
	s.requireNoTokenOfADeletedKey(readings)
	t.Logf("%d reads during %d rotations, the slowest took %s", len(readings), rotations, slowest(readings).Round(time.Millisecond))
}

// TestRotation_settingsAreCarriedOver rotates a key that has every setting that IAM knows.
func TestRotation_settingsAreCarriedOver(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.AddLimitedKey(s.key, apicsim.KeyOptions{Description: "of the billing team", Life: 90 * 24 * time.Hour, ActionWhenLeaked: "disable", SupportSessions: true})
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL(), "rotation_period": "8760h"})
	if printed := s.mustCLI("read", "apic/status/us-south"); !strings.Contains(printed, "api_key_expires_at") {
		t.Errorf("the status says %s", printed)
	}
	_, err := s.rotate("us-south")
	s.check(err)
	key := s.awaitOneKey("")
	if life := key.ExpiresAt.Sub(key.CreatedAt); life < 89*24*time.Hour || life > 91*24*time.Hour {
		t.Errorf("the successor lives for %s", life)
	}
	if !key.CreatedByAPI || key.Description != "of the billing team" || key.ActionWhenLeaked != "disable" || !key.SupportSessions {
		t.Errorf("the successor is %+v", key)
	}
}

// TestRotation_laggingIAM rotates while the key of each read is exchanged on its own and
// every second part of IAM does not know a key until it is half a minute old.
func TestRotation_laggingIAM(t *testing.T) {
	t.Parallel()
	const lag = 30 * time.Second
	s := newRaftStack(t)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL(), "cache": false})
	s.sim.SetLag(apicsim.Lag{Tokens: lag, Every: 2})
	stop := s.crowd(6, 200*time.Millisecond, "us-south")
	id, err := s.rotate("us-south")
	s.check(err)
	rotated := time.Now()
	s.awaitOneKey("")
	until(time.Until(rotated.Add(lag)), nil, func() bool { return false })
	readings := stop()
	requireAllAnswered(t, readings)
	if refused := s.sim.Counts().Refused; refused < 2 {
		t.Errorf("%d exchanges met a part that lags", refused)
	}
	config := s.read("apic/config/us-south")
	if configKeyID(config) != id {
		t.Errorf("the config has the key %s, and %s was rotated in", configKeyID(config), id)
	}
	t.Logf("%d reads, the slowest took %s; %d exchanges were refused", len(readings), slowest(readings).Round(time.Millisecond), s.sim.Counts().Refused)
}

// TestRotation_keyTakenBackInItsGrace is the way back that docs/rotation.md promises to a
// program that was overlooked and shows up when its key is disabled.
func TestRotation_keyTakenBackInItsGrace(t *testing.T) {
	t.Parallel()
	const grace = 2 * time.Minute
	s := newRaftStack(t)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL()})
	s.write("apic/config/us-south/rotate", map[string]any{"grace_period": grace.String()})
	rotated := time.Now()
	disabled := func() bool { return s.sim.Keys()[0].Disabled }
	if !until(grace, nil, disabled) || time.Since(rotated) < grace/2-5*time.Second {
		t.Fatalf("after %s the old key is disabled: %t", time.Since(rotated), disabled())
	}

	s.sim.EnableKey(s.key)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL(), "rotation_grace_period": "0s"})
	until(time.Until(rotated.Add(grace+10*time.Second)), nil, func() bool { return false })
	if left := s.awaitOneKey(""); left.KeyID != s.sim.KeyID(s.key) {
		t.Error("the key that was taken back is deleted")
	}
	s.write("apic/token/us-south", nil)
}

// requireNoTokenOfADeletedKey fails if a read began after the deletion of the key
// whose token it is.
func (s *stack) requireNoTokenOfADeletedKey(readings []reading) {
	s.Helper()
	deletions := map[string]time.Time{}
	for _, key := range s.sim.Keys() {
		deletions[key.KeyID] = key.DeletedAt
	}
	keyOf := map[string]string{}
	for _, issued := range s.sim.Issued() {
		keyOf[issued.ID] = issued.KeyID
	}
	seen := map[string]bool{}
	for _, r := range readings {
		keyID := keyOf[r.tokenID()]
		seen[keyID] = true
		if deleted := deletions[keyID]; !deleted.IsZero() && r.began.After(deleted) {
			s.Fatalf("a read that began %s after the deletion of a key was answered with that key's token", r.began.Sub(deleted))
		}
	}
	if len(seen) < 5 {
		s.Errorf("the readers saw tokens of %d keys only", len(seen))
	}
}

// TestCLI_rotatesAKeyAndShowsItsID is a user's first rotation.
func TestCLI_rotatesAKeyAndShowsItsID(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL()})
	for _, printed := range []string{
		s.mustCLI("write", "-f", "apic/config/us-south/rotate"),
		s.mustCLI("read", "apic/config/us-south"),
	} {
		if !strings.Contains(printed, "api_key_id") || !strings.Contains(printed, "last_vault_rotation") || !strings.Contains(printed, "retired_api_keys") {
			t.Errorf("the CLI shows %q", printed)
		}
	}
	old := s.sim.Keys()[0]
	if printed := s.mustCLI("read", "-field=retired_api_keys", "apic/status/us-south"); !strings.Contains(printed, old.ID) {
		t.Errorf("the status shows %q", printed)
	}
	s.mustCLI("patch", "apic/config/us-south", "rotation_period=720h")
	printed := s.mustCLI("read", "apic/config/us-south")
	if !strings.Contains(printed, "next_vault_rotation") || !strings.Contains(printed, "720h") {
		t.Errorf("the CLI shows %q", printed)
	}
	if live := s.liveKeysOf(old.IAMID); len(live) != 2 || live[0].Disabled {
		t.Errorf("in the grace period IAM has %d keys", len(live))
	}
	s.sim.InjectKeyFault(apicsim.KeyFault{Call: "create", Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable})
	_, err := s.rotate("us-south")
	if got := status(err); got != http.StatusBadGateway {
		t.Errorf("while IAM fails, rotate answers %d: %v", got, err)
	}
	s.mustCLI("read", "apic/token/us-south")
}

// TestExampleRotation_adoptsAKey runs examples/rotation as somebody with that
// example's policy.
func TestExampleRotation_adoptsAKey(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	policy, err := os.ReadFile("../../examples/rotation/operator-policy.hcl")
	s.check(err)
	operator := s.as(string(policy))
	script, err := filepath.Abs("../../examples/rotation/adopt-key.sh")
	s.check(err)
	s.check(os.WriteFile(s.path("apikey.json"), []byte(`{"apikey":"`+s.key+`"}`), 0o600))
	s.check(os.Symlink(vaultBinary, s.path("home/vault")))

	adopt := exec.CommandContext(t.Context(), script, "us-south", "apikey.json", "720h",
		"iam_url="+s.service.URL(), "token_url="+s.service.URL()+"/apikey", "api_url="+s.service.URL())
	adopt.Dir = s.dir
	adopt.Env = append(s.environment(), "VAULT_ADDR="+s.client.Address(), "VAULT_TOKEN="+operator.Token(), "PATH="+s.path("home")+":"+os.Getenv("PATH"))
	said, err := adopt.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.ReplaceAll(string(said), s.key, "[the key]"))
	}
	s.requireNowhere("what the script says", string(said))
	if !s.awaitOneKey("").CreatedByAPI {
		t.Error("the downloaded key is left")
	}
	if _, err := os.Stat(s.path("apikey.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	if status, err := operator.Logical().Read("apic/status/us-south"); err != nil || status == nil {
		t.Errorf("the operator cannot see how it went: %v", err)
	}
	s.readToken("us-south")
}

// TestRotation_dueWhileVaultWasDown sets the schedule back in Vault's own storage,
// because the shortest period is an hour.
func TestRotation_dueWhileVaultWasDown(t *testing.T) {
	t.Parallel()
	s := newStackOn(t, withRawStorage, pluginBinary)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL(), "rotation_period": "24h", "rotation_grace_period": "0s"})
	token := s.readToken("us-south").Data["token_id"]
	s.editStored("us-south", func(stored map[string]any) {
		stored["next_vault_rotation"] = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	})
	s.write("sys/plugins/reload/backend", map[string]any{"mounts": "apic/"})
	rotated := until(2*time.Minute, nil, func() bool { return s.sim.Counts().KeysDeleted == 1 })
	if !rotated {
		t.Fatal("the key was not rotated")
	}
	config := s.read("apic/config/us-south")
	if live := s.awaitOneKey(""); configKeyID(config) != live.ID {
		t.Errorf("IAM has the key %s, the config %s", live.ID, configKeyID(config))
	}
	next, err := time.Parse(time.RFC3339, config.Data["next_vault_rotation"].(string))
	if err != nil || time.Until(next) < 21*time.Hour || time.Until(next) > 24*time.Hour {
		t.Errorf("the next rotation is in %s (%v)", time.Until(next), err)
	}
	if s.readToken("us-south").Data["token_id"] == token {
		t.Error("readers still share a token of the old key")
	}
}
