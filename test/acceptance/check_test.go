// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestCheck_saysWhatIsWrongToPeopleAndPrograms locks and disables a key at its issuer.
func TestCheck_saysWhatIsWrongToPeopleAndPrograms(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"iam_url": s.service.URL()})
	s.readToken("us-south")
	before := s.sim.Counts()
	shown := s.runDocumented("operations.md", "## Check a config")
	for _, want := range []string{
		"ok: ApiKey-", "ok: readers share a token that lives until", "ok: this host's clock is within a minute",
		"unknown: only a rotation can tell whether the identity may create and delete keys", "ok: no other config of this mount holds the key",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("the CLI shows no %q:\n%s", want, shown)
		}
	}
	checker := s.as(`path "apic/config/us-south/check" { capabilities = ["read"] }`)
	if _, err := checker.Logical().Read("apic/config/us-south"); status(err) != http.StatusForbidden {
		t.Errorf("the config is answered %d", status(err))
	}
	reader := s.as(`path "apic/config/+" { capabilities = ["read"] }`)
	if _, err := reader.Logical().Read("apic/config/us-south/check"); status(err) != http.StatusForbidden {
		t.Errorf("without its own capability it is answered %d", status(err))
	}

	s.sim.LockKey(s.key)
	var found struct {
		Data struct {
			OK     bool     `json:"ok"`
			Errors []string `json:"errors"`
			APIKey string   `json:"api_key"`
		} `json:"data"`
		Warnings []string `json:"warnings"`
	}
	s.mustCLI("patch", "apic/config/us-south", "max_retries=1") // A check of what was written begins anew.
	s.check(json.Unmarshal([]byte(s.mustCLI("read", "-format=json", "apic/config/us-south/check")), &found))
	if found.Data.OK || !slices.Equal(found.Data.Errors, []string{"api_key"}) || !strings.HasPrefix(found.Data.APIKey, "error: ApiKey-") ||
		len(found.Warnings) != 1 || !strings.Contains(found.Warnings[0], "is locked") {
		t.Errorf("found %+v", found)
	}
	s.requireNowhere("the answer", s.expectCLI("unlock it at its issuer", "read", "apic/config/us-south/check"))
	if after := s.sim.Counts(); after.KeysCreated != before.KeysCreated || after.KeysDeleted != before.KeysDeleted {
		t.Errorf("keys were made or deleted: %+v", after)
	}
}
