// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// document is the text of a file in docs/.
func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is a document's part under a heading, up to the next one of any level.
// heading has its number signs.
func section(t *testing.T, name, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(document(t, name), "\n"+heading+"\n")
	if !found {
		t.Fatalf("docs/%s has no heading %q", name, heading)
	}
	fenced := false
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		}
		if !fenced && strings.HasPrefix(line, "#") {
			break
		}
		kept.WriteString(line)
	}
	return kept.String()
}

// shell are the commands of a text: what stands in its blocks that are fenced as
// sh, those of a list's items included.
func shell(text string) string {
	var commands strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		switch fence := strings.TrimSpace(line); {
		case fence == "```sh":
			inside = true
		case fence == "```":
			inside = false
		case inside:
			commands.WriteString(line)
		}
	}
	return commands.String()
}

// runDocumented runs the commands under a heading of a document, as one shell
// session with the variables that its text asks for, and returns what they print.
// A command that fails fails the test.
func (s *stack) runDocumented(name, heading string, variables ...string) string {
	s.Helper()
	commands := shell(section(s.T, name, heading))
	if commands == "" {
		s.Fatalf("docs/%s has no commands under %q", name, heading)
	}
	output, err := s.bash(commands, variables...)
	if err != nil {
		s.Fatalf("docs/%s, %q: %v\n%s", name, heading, err, strings.ReplaceAll(output, s.key, "[the key]"))
	}
	return output
}

// bash runs a script with the real CLI and the server's address and token, and
// returns what it printed on both streams.
func (s *stack) bash(script string, variables ...string) (string, error) {
	s.Helper()
	s.check(os.MkdirAll(s.path("bin"), 0o700))
	if err := os.Symlink(vaultBinary, s.path("bin/vault")); err != nil && !os.IsExist(err) {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	command.Dir = s.dir
	command.Env = append(s.environment(), "VAULT_ADDR="+s.client.Address(), "VAULT_TOKEN="+s.client.Token(),
		"PATH="+s.path("bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	command.Env = append(command.Env, variables...)
	output, err := command.CombinedOutput()
	return string(output), err
}
