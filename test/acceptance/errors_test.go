// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestErrors_statusOfEachKindOfFailure(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"verify": false})
	steps := []struct {
		name   string
		act    func() error
		status int
		says   string
	}{
		{"an unknown config", func() error { return s.tryRead("apic/token/nope") }, http.StatusBadRequest, `there is no config "nope"`},
		{"a bad field", func() error {
			return s.tryWrite("apic/config/us-south", s.configData(map[string]any{"region": "no label"}))
		}, http.StatusBadRequest, "region must be"},
		{"a name with odd characters", func() error { return s.tryWrite("apic/config/a/b", s.configData(nil)) }, http.StatusBadRequest, "name must be"},
		{"a destination without the key", func() error {
			return s.tryWrite("apic/config/us-south", map[string]any{"token_url": "https://elsewhere.example/"})
		}, http.StatusBadRequest, "api_key is required again"},
		{"a key that is refused", func() error {
			return s.tryWrite("apic/config/us-south", s.configData(map[string]any{"api_key": "unknown"}))
		}, http.StatusBadRequest, "refused the API key (HTTP 401)"},
		{"a service that fails", func() error {
			s.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503, RetryAfter: "30"})
			return s.tryRead("apic/token/us-south")
		}, http.StatusBadGateway, "failed with HTTP 503"},
		{"a service in its backoff", func() error { return s.tryRead("apic/token/us-south") }, http.StatusServiceUnavailable, "next attempt is possible in"},
	}
	for _, step := range steps {
		err := step.act()
		if status(err) != step.status || !strings.Contains(err.Error(), step.says) {
			t.Errorf("%s: answered %v", step.name, err)
		}
	}
}

// Its revocation needs nothing.
func TestLease_endsWithItsToken(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"lease": true})
	secret := s.readToken("us-south")
	left := time.Until(s.sim.Issued()[0].ExpiresAt)
	if secret.LeaseID == "" || secret.Renewable || time.Duration(secret.LeaseDuration)*time.Second > left+time.Second {
		t.Fatalf("lease %q, renewable %t, of %d s for a token of %s", secret.LeaseID, secret.Renewable, secret.LeaseDuration, left)
	}
	s.expectCLI("All revocation operations queued successfully", "lease", "revoke", secret.LeaseID)
	s.eventually("the revoked token is no longer shared", func() bool {
		return s.readToken("us-south").Data["token_id"] != secret.Data["token_id"]
	})

	last := s.readToken("us-south")
	s.mustCLI("delete", "apic/config/us-south")
	s.check(s.service.Refuse())
	s.mustCLI("lease", "revoke", "-sync", last.LeaseID)
	if _, err := s.client.Sys().Lookup(last.LeaseID); status(err) != http.StatusBadRequest {
		t.Errorf("the lease is still known: %v", err)
	}
}
