// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExampleAnsiblePlayCallsAPIConnect(t *testing.T) {
	t.Parallel()
	needs(t, "ansible", "ansible-doc", "-t", "lookup", "community.hashi_vault.vault_read")
	e := newExample(t, "ansible", 4)
	if refused, err := e.run(1); err == nil {
		t.Errorf("without the policy the play says %s", e.scrub(refused))
	}
	e.mustRun(0)
	// As talkative as somebody makes it who looks for a fault.
	e.more = []string{"ANSIBLE_VERBOSITY=3"}
	answer := e.mustRun(1)
	// Not the present one: a play may take longer than a token is shared here.
	if !strings.Contains(answer, "token_id") {
		t.Errorf("the API manager answered %s", e.scrub(answer))
	}
	e.requireAccepted(1)
	e.requireDiscreet(answer)
	e.requireNoTokenIn(e.dir)
	e.requireNoTokenIn(e.path("home"))
}

func TestExampleAnsiblePlaySetsUpTheEngine(t *testing.T) {
	t.Parallel()
	needs(t, "ansible", "ansible-doc", "-t", "lookup", "community.hashi_vault.vault_read")
	e := newExample(t, "ansible", 4)
	e.check(e.client.Sys().Unmount("apic"))
	key, err := json.Marshal(map[string]string{"apikey": e.key})
	e.check(err)
	e.check(os.WriteFile(filepath.Join(e.dir, "apikey.json"), key, 0o600))
	settings := e.configData(nil)
	delete(settings, "api_key")
	more, err := json.Marshal(map[string]any{"settings": settings})
	e.check(err)
	e.blocks[2] = strings.Replace(e.blocks[2], "/path/to/"+pluginName, e.plugin, 1) + " -e '" + string(more) + "'"
	e.more = []string{"ANSIBLE_VERBOSITY=3"}

	said := e.mustRun(2) + e.mustRun(2)
	if got := e.callMe(e.readToken(exampleConfig).Data["token"].(string)); got != http.StatusOK {
		e.Errorf("the API manager answered %d to the token", got)
	}
	policy, err := e.client.Sys().GetPolicy("apic-us-south")
	e.check(err)
	if !strings.Contains(policy, "apic/token/us-south") {
		e.Errorf("the policy is %q", policy)
	}
	e.check(os.Remove(filepath.Join(e.dir, "apikey.json")))
	e.requireDiscreet(said)
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
