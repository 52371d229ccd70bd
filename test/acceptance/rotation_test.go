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
