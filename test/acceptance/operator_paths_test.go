// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"regexp"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestCLI_showsWhetherAKeyWorksAndTheBuild(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	id := s.readToken("us-south").Data["token_id"].(string)
	s.expectCLI(id, "read", "-field=token_id", "apic/status/us-south")
	s.expectCLI("0", "read", "-field=consecutive_failures", "apic/status/us-south")
	s.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 401})
	if _, err := s.cli("write", "-f", "apic/token/us-south"); err == nil {
		t.Fatal("the refused key was exchanged for a token")
	}
	s.expectCLI("refused the API key (HTTP 401)", "read", "-field=last_error", "apic/status/us-south")
	s.expectCLI(id, "read", "-field=token_id", "apic/status/us-south")

	s.expectCLI(pluginVersion, "read", "-field=version", "apic/info")
	sdk := s.mustCLI("read", "-field=sdk_version", "apic/info")
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+`).MatchString(sdk) {
		t.Errorf("sdk_version is %q", sdk)
	}
}

func TestOperatorPaths_needAPolicyThatGrantsThem(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	app := s.as(`path "apic/token/*" { capabilities = ["read"] }`)
	for _, path := range []string{"apic/status/us-south", "apic/info", "apic/metrics"} {
		for _, token := range []string{"", app.Token()} {
			if got, _, _ := s.scrape(path, token); got != http.StatusForbidden {
				t.Errorf("%s is answered %d", path, got)
			}
		}
	}
}
