// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAgent_rendersEachTokenInTime lets the real Vault Agent template tokens that live
// 20 s, and a consumer use whatever the file holds all the time.
func TestAgent_rendersEachTokenInTime(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.SetTokenTTL(20 * time.Second)
	s.writeConfig("us-south", nil)
	s.enableAudit()
	s.startAgent()
	s.eventually("agent has rendered the file", func() bool {
		content, err := os.ReadFile(s.path("authorization-header"))
		return err == nil && len(content) > 0
	})

	const replacements = 3
	seen := map[string]bool{}
	end := time.Now().Add(2 * time.Minute)
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for len(seen) <= replacements && time.Now().Before(end) {
		header, err := os.ReadFile(s.path("authorization-header"))
		s.check(err)
		seen[string(header)] = true
		if got, _, _ := s.get(s.service.URL()+"/v1/me", string(header)); got != http.StatusOK {
			t.Fatalf("with the file's token the API manager answered %d after %d tokens", got, len(seen))
		}
		<-pace.C
	}
	if len(seen) <= replacements {
		t.Fatalf("in two minutes there were %d tokens of 20 s", len(seen))
	}
	reads := s.auditedRequests("read", "apic/token/us-south")
	if reads > 2*len(seen) {
		t.Errorf("agent read %d times for %d tokens", reads, len(seen))
	}
	t.Logf("agent read %d times for %d tokens", reads, len(seen))
}

// readmeTemplate is the template that the README shows, so that what it shows is
// what is tested.
func readmeTemplate(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(readme), "```hcl\n")
	template, _, closed := strings.Cut(after, "```")
	if !found || !closed {
		t.Fatal("the README shows no template")
	}
	return template
}

// startAgent runs an agent that may read one token path and has the README's
// template.
func (s *stack) startAgent() {
	s.Helper()
	app := s.as(`path "apic/token/us-south" { capabilities = ["read"] }`)
	s.check(os.WriteFile(s.path("agent-token"), []byte(app.Token()), 0o600))
	s.check(os.WriteFile(s.path("agent.hcl"), fmt.Appendf(nil, `
vault {
  address = %q
}
auto_auth {
  method "token_file" {
    config = {
      token_file_path = %q
    }
  }
}
%s
`, s.client.Address(), s.path("agent-token"), readmeTemplate(s.T)), 0o600))
	ctx, cancel := context.WithCancel(context.Background())
	agent := exec.CommandContext(ctx, vaultBinary, "agent", "-config", s.path("agent.hcl"))
	agent.Cancel = func() error { return agent.Process.Signal(syscall.SIGTERM) }
	agent.WaitDelay = 5 * time.Second
	agent.Dir = s.dir
	agent.Env = s.environment()
	s.check(agent.Start())
	s.Cleanup(func() {
		cancel()
		_ = agent.Wait()
	})
}
