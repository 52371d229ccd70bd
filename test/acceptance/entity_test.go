// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/api"
)

// TestEntityTokens_ofTwoUsersDiffer and are the same for each of them, however often they
// log in. Users have entities from their first login on.
func TestEntityTokens_ofTwoUsersDiffer(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.check(s.client.Sys().EnableAuthWithOptions("userpass", &api.EnableAuthOptions{Type: "userpass"}))
	rules := `path "apic/token/us-south" { capabilities = ["read", "update"] }`
	alice, bob := s.user("alice", rules), s.user("bob", rules)
	s.writeConfig("us-south", map[string]any{"cache": "entity"})
	issuedToWriter := s.sim.Issued()[0].ID

	id := func(client *api.Client) string { return s.readAs(client).Data["token_id"].(string) }
	ofAlice, ofBob := id(alice), id(bob)
	if ofAlice == ofBob {
		t.Error("two users share a token")
	}
	if got := id(s.user("alice", rules)); got != ofAlice {
		t.Error("a user who logged in again got another token")
	}
	if got := id(alice); got != ofAlice {
		t.Error("a user who read again got another token")
	}
	if got := id(s.client); got != issuedToWriter {
		t.Error("the root token, which wrote the config, got another token than the write did")
	}
	dedicated, err := alice.Logical().Write("apic/token/us-south", nil)
	s.check(err)
	if dedicated.Data["token_id"] == ofAlice {
		t.Error("a dedicated token is shared")
	}
	if got := s.sim.Counts().Exchanges; got != 4 {
		t.Errorf("%d exchanges", got)
	}

	status := s.read("apic/status/us-south")
	if status.Data["entities"] != json.Number("2") || status.Data["token_id"] != nil {
		t.Errorf("the status is %v", status.Data)
	}
	for _, sent := range []any{true, "true"} {
		s.write("apic/config/us-south", map[string]any{"cache": sent})
		if got := s.mustCLI("read", "-field=cache", "apic/config/us-south"); got != "true" {
			t.Errorf("cache is %q", got)
		}
		if id(alice) != id(bob) {
			t.Errorf("with cache=%v (%T) two users do not share a token", sent, sent)
		}
	}
	s.mustCLI("write", "apic/config/us-south", "cache=entity")
	if id(alice) == id(bob) {
		t.Error("two users share a token")
	}
}
