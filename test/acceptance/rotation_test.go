// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
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

// TestFiftyRotationsUnderLoadFailNoReadAndLeaveOneKey rotates while 200 clients
// read.
func TestFiftyRotationsUnderLoadFailNoReadAndLeaveOneKey(t *testing.T) {
	t.Parallel()
	const clients, rotations = 200, 50
	s := newRaftStack(t)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL()})
	stop := s.crowd(clients, 200*time.Millisecond, "us-south")
	for range rotations {
		if _, err := s.rotate("us-south"); err != nil {
			t.Fatal(err)
		}
	}
	readings := stop()
	requireAllAnswered(t, readings)
	counts := s.sim.Counts()
	if counts.KeysCreated != rotations || counts.KeysDeleted != rotations {
		t.Errorf("IAM created %d keys and deleted %d", counts.KeysCreated, counts.KeysDeleted)
	}
	s.requireNoTokenOfADeletedKey(readings)
	t.Logf("%d reads during %d rotations, the slowest took %s", len(readings), rotations, slowest(readings).Round(time.Millisecond))
}

// requireNoTokenOfADeletedKey fails if a read began after the deletion of the key
// that bought its token.
func (s *stack) requireNoTokenOfADeletedKey(readings []reading) {
	s.Helper()
	deletions := map[string]time.Time{}
	for _, key := range s.sim.Keys() {
		deletions[key.KeyID] = key.DeletedAt
	}
	buyers := map[string]string{}
	for _, issued := range s.sim.Issued() {
		buyers[issued.ID] = issued.KeyID
	}
	seen := map[string]bool{}
	for _, r := range readings {
		buyer := buyers[r.tokenID()]
		seen[buyer] = true
		if deleted := deletions[buyer]; !deleted.IsZero() && r.began.After(deleted) {
			s.Fatalf("a read that began %s after the deletion of a key was answered with that key's token", r.began.Sub(deleted))
		}
	}
	if len(seen) < 5 {
		s.Errorf("the readers saw tokens of %d keys only", len(seen))
	}
}

// TestTheCLIRotatesAKeyAndShowsItsId is a user's first rotation.
func TestTheCLIRotatesAKeyAndShowsItsId(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL()})
	printed := s.mustCLI("write", "-f", "apic/config/us-south/rotate")
	if !strings.Contains(printed, "api_key_id") || !strings.Contains(printed, "last_rotated") {
		t.Errorf("the CLI shows %q", printed)
	}
	s.mustCLI("patch", "apic/config/us-south", "rotation_period=720h")
	printed = s.mustCLI("read", "apic/config/us-south")
	if !strings.Contains(printed, "next_rotation") || !strings.Contains(printed, "720h") {
		t.Errorf("the CLI shows %q", printed)
	}
	if live := s.liveKeysOf(s.sim.Keys()[0].IAMID); len(live) != 1 || !live[0].CreatedByAPI {
		t.Errorf("IAM holds %d keys", len(live))
	}
	s.sim.InjectKeyFault(apicsim.KeyFault{Call: "create", Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable})
	_, err := s.rotate("us-south")
	if got := status(err); got != http.StatusBadGateway {
		t.Errorf("while IAM fails, rotate answers %d: %v", got, err)
	}
	s.mustCLI("read", "apic/token/us-south")
}

// TestTheExampleAdoptsAKeyAndTheDownloadedOneIsDeleted runs examples/rotation as
// somebody with that example's policy.
func TestTheExampleAdoptsAKeyAndTheDownloadedOneIsDeleted(t *testing.T) {
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
	live := s.liveKeysOf(s.sim.Keys()[0].IAMID)
	if len(live) != 1 || !live[0].CreatedByAPI {
		t.Errorf("IAM holds %d keys", len(live))
	}
	if _, err := os.Stat(s.path("apikey.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	if status, err := operator.Logical().Read("apic/status/us-south"); err != nil || status == nil {
		t.Errorf("the operator cannot see how it went: %v", err)
	}
	s.readToken("us-south")
}

// TestAScheduledRotationThatCameDueWhileNobodyRanIsDoneAfterTheStart sets the
// schedule back in Vault's own storage, because the shortest period is an hour.
func TestAScheduledRotationThatCameDueWhileNobodyRanIsDoneAfterTheStart(t *testing.T) {
	t.Parallel()
	s := newStackOn(t, onRaft+"\nraw_storage_endpoint = true", pluginBinary)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL(), "rotation_period": "24h"})
	token := s.readToken("us-south").Data["token_id"]
	s.editStored("us-south", func(stored map[string]any) {
		stored["next_rotation"] = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	})
	_, err := s.client.Logical().Write("sys/plugins/reload/backend", map[string]any{"mounts": "apic/"})
	s.check(err)
	// Vault's tick comes once a minute.
	rotated := s.until(2*time.Minute, nil, func() bool { return s.sim.Counts().KeysDeleted == 1 })
	if !rotated {
		t.Fatal("the key was not rotated")
	}
	config, err := s.client.Logical().Read("apic/config/us-south")
	s.check(err)
	live := s.liveKeysOf(s.sim.Keys()[0].IAMID)
	if len(live) != 1 || configKeyID(config) != live[0].ID {
		t.Errorf("IAM holds %d keys, and not just the stored one", len(live))
	}
	next, err := time.Parse(time.RFC3339, config.Data["next_rotation"].(string))
	if err != nil || time.Until(next) < 21*time.Hour || time.Until(next) > 24*time.Hour {
		t.Errorf("the next rotation is in %s (%v)", time.Until(next), err)
	}
	if s.readToken("us-south").Data["token_id"] == token {
		t.Error("readers still share a token of the old key")
	}
}

// editStored changes a config behind the plugin's back.
func (s *stack) editStored(name string, edit func(map[string]any)) {
	s.Helper()
	mounts, err := s.client.Sys().ListMounts()
	s.check(err)
	path := "sys/raw/logical/" + mounts["apic/"].UUID + "/config/" + name
	raw, err := s.client.Logical().Read(path)
	s.check(err)
	var stored map[string]any
	s.check(json.Unmarshal([]byte(raw.Data["value"].(string)), &stored))
	edit(stored)
	edited, err := json.Marshal(stored)
	s.check(err)
	_, err = s.client.Logical().Write(path, map[string]any{"value": string(edited)})
	s.check(err)
}
