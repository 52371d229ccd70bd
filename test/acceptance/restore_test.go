// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestRestore_findsConfigsWithDeletedKeys loses a key's change with a restored
// snapshot, and writes another one as docs/operations.md says.
func TestRestore_findsConfigsWithDeletedKeys(t *testing.T) {
	t.Parallel()
	s := newRaftStack(t)
	s.writeConfig("us-south", nil)
	s.sim.AddKey("kept-" + s.key)
	s.writeConfig("eu-gb", map[string]any{"api_key": "kept-" + s.key})
	s.runDocumented("operations.md", "## Backup and disaster recovery")

	replaceKey := func() {
		s.runDocumented("operations.md", "## When a key leaks", "TOKEN_URL="+s.service.URL()+"/apikey", "API_URL="+s.service.URL())
	}
	for _, next := range []string{"second-" + s.key, "third-" + s.key} {
		s.sim.AddKey(next)
		s.check(os.WriteFile(s.path("apikey.json"), []byte(`{"apikey":"`+next+`"}`), 0o600))
		replaceKey()
	}
	s.sim.RevokeKey(s.key)
	s.sim.RevokeKey("second-" + s.key)
	s.readToken("us-south")

	s.restore("eu-gb")
	output := s.runDocumented("operations.md", "### Find the keys that are gone")
	if want := "needs a new key: us-south"; !strings.Contains(output, want) || strings.Contains(output, "new key: eu-gb") {
		t.Errorf("want %q alone in\n%s", want, output)
	}
	s.requireNowhere("what the document's commands print", output)
	replaceKey()
	s.readToken("us-south")
}

// restore goes back to the snapshot, and waits until a config of it is served.
func (s *stack) restore(name string) {
	s.Helper()
	s.runDocumented("operations.md", "### Restore")
	s.eventually("vault serves the restored storage", func() bool { return readOnce(s.client, name).err == nil })
}

// TestRestore_rotationOfAnOlderKey is what docs/operations.md says of a config that was
// rotated after the snapshot, here or in a cluster that was restored from it too.
func TestRestore_rotationOfAnOlderKey(t *testing.T) {
	t.Parallel()
	s := newRaftStack(t)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL()})
	s.runDocumented("operations.md", "## Backup and disaster recovery")
	s.mustCLI("write", "-f", "apic/config/us-south/rotate")
	before := s.liveKeysOf(s.sim.Keys()[0].IAMID)
	if len(before) != 2 {
		t.Fatalf("in the grace period IAM has %d keys", len(before))
	}
	unknown := before[1].ID

	s.restore("us-south")
	_, err := s.rotate("us-south")
	s.requireError("a rotation", err, http.StatusServiceUnavailable, "goes on")
	var said string
	refused := until(5*time.Minute, nil, func() bool {
		status := s.read("apic/status/us-south")
		said, _ = status.Data["last_rotation_error"].(string)
		return said != ""
	})
	if !refused || !strings.Contains(said, unknown) || !strings.Contains(said, "snapshot") {
		t.Fatalf("the status says %q", said)
	}
	if live := s.liveKeysOf(before[0].IAMID); len(live) != 2 {
		t.Errorf("IAM has %d keys", len(live))
	}

	s.sim.RevokeKeyID(unknown)
	rotated, err := s.rotate("us-south")
	s.check(err)
	s.runDocumented("operations.md", "### Restore onto another cluster")
	if live := s.liveKeysOf(before[0].IAMID); live[len(live)-1].ID != rotated {
		t.Error("giving the mount up has deleted its key")
	}
}
