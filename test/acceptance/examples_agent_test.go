// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestExampleAgentKeepsAnEnvironmentFile(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newExample(t, "agent-env-file", 3)
	e.mustRun(0)
	agent := e.start(1)
	first := e.waitForFile(agent, e.dir+"/apic.env", "")
	answers := e.mustRun(2)
	e.requireOwnersOnly(e.dir + "/apic.env")

	second := e.waitForFile(agent, e.dir+"/apic.env", first)
	answers += e.mustRun(2)
	if want := e.currentTokenID(); !strings.Contains(answers, want) {
		t.Errorf("the API manager was not called with the present token, but answered %s", answers)
	}
	e.requireEnvironmentFile(second)
	e.requireAccepted(2)
	agent.stop()
	e.requireDiscreet(agent.said.String() + answers)
}

func TestExampleAgentKeepsTheToolkitLoggedIn(t *testing.T) {
	t.Parallel()
	e := newExample(t, "agent-toolkit", 2)
	e.mustRun(0)
	agent := e.start(1)
	file := e.path("home/.apiconnect/token")
	first := e.waitForFile(agent, file, "")
	e.useToolkitToken(first)
	e.requireOwnersOnly(file)
	e.requireOwnersOnly(e.path("home/.apiconnect/vault-token"))

	e.useToolkitToken(e.waitForFile(agent, file, first))
	e.requireAccepted(2)
	agent.stop()
	e.requireDiscreet(agent.said.String())
}

// useToolkitToken reads a token file as the toolkit does: it maps a server to a
// text, which is YAML in its turn.
func (e *example) useToolkitToken(content string) {
	e.Helper()
	var servers map[string]string
	e.check(yaml.Unmarshal([]byte(content), &servers))
	server, err := url.Parse(e.service.URL())
	e.check(err)
	text, found := servers[server.Host+"/api"]
	if !found || len(servers) != 1 {
		e.Fatalf("the token file has %d servers, and %s/api among them: %t", len(servers), server.Host, found)
	}
	var login map[string]string
	e.check(yaml.Unmarshal([]byte(text), &login))
	refresh, found := login["refresh_token"]
	if !found || refresh != "" || len(login) != 2 {
		e.Errorf("the login has %d members, and an empty refresh_token among them: %t", len(login), found && refresh == "")
	}
	if got := e.callMe(login["access_token"]); got != http.StatusOK {
		e.Errorf("the API manager answered %d to the toolkit's token", got)
	}
}

func TestExampleAgentRestartsAProgramWithEachNewToken(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newExample(t, "agent-exec", 2)
	e.mustRun(0)
	first := e.currentTokenID()
	agent := e.start(1)
	agent.waitUntil("the program has used the first token", func() bool {
		return strings.Contains(agent.said.String(), first)
	})
	agent.waitUntil("the program was stopped and has used another token", func() bool {
		_, after, stopped := strings.Cut(agent.said.String(), "stopped, for a newer token")
		return stopped && strings.Contains(after, e.currentTokenID())
	})
	if again := e.currentTokenID(); again == first {
		t.Error("there never was another token")
	}
	e.requireAccepted(2)
	agent.stop()
	e.requireDiscreet(agent.said.String())
}

// waitForFile waits until the agent has written something else into a file.
func (e *example) waitForFile(agent *process, path, other string) (content string) {
	e.Helper()
	agent.waitUntil(path+" has a new token", func() bool {
		read, err := os.ReadFile(path)
		content = string(read)
		return err == nil && content != "" && content != other
	})
	return content
}

// requireEnvironmentFile fails unless systemd and docker take each line for a variable.
func (e *example) requireEnvironmentFile(content string) {
	e.Helper()
	for _, line := range strings.Split(strings.TrimSuffix(content, "\n"), "\n") {
		if name, value, found := strings.Cut(line, "="); !found || !strings.HasPrefix(name, "APIC_") || value == "" || strings.ContainsAny(value, " \"'\\") {
			e.Errorf("apic.env has the line %q", e.scrub(line))
		}
	}
}

func (e *example) requireOwnersOnly(path string) {
	e.Helper()
	info, err := os.Stat(path)
	e.check(err)
	if got := info.Mode().Perm(); got != fs.FileMode(0o600) {
		e.Errorf("%s has the mode %s", path, got)
	}
}
