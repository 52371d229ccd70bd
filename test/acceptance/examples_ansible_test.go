// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExampleAnsiblePlayCallsAPIConnect(t *testing.T) {
	t.Parallel()
	needs(t, "ansible", "ansible-doc", "-t", "lookup", "community.hashi_vault.vault_read")
	e := newExample(t, "ansible", 2)
	if refused, err := e.run(1); err == nil {
		t.Errorf("without the policy the play says %s", e.scrub(refused))
	}
	e.mustRun(0)
	// As talkative as somebody makes it who looks for a fault.
	e.more = []string{"ANSIBLE_VERBOSITY=3"}
	answer := e.mustRun(1)
	if want := e.currentTokenID(); !strings.Contains(answer, want) {
		t.Errorf("the API manager was not called with the present token, but answered %s", e.scrub(answer))
	}
	e.requireAccepted(1)
	e.requireDiscreet(answer)
	e.requireNoTokenIn(e.dir)
	e.requireNoTokenIn(e.path("home"))
}

// requireNoTokenIn fails if a file below a directory, which need not exist, has a
// token.
func (e *example) requireNoTokenIn(dir string) {
	e.Helper()
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		return
	}
	e.check(filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(string(content), e.jwtHeader) {
			e.Errorf("%s has a token", path)
		}
		return err
	}))
}
