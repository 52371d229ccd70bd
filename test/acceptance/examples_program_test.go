// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestExampleScriptCallsAPIConnectWithCurl(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newExample(t, "curl", 2)
	if refused, err := e.run(1); err == nil || !strings.Contains(refused, "permission denied") {
		t.Errorf("without the policy the script says %s", e.scrub(refused))
	}
	e.mustRun(0)
	answer := e.mustRun(1)
	if want := e.currentTokenID(); !strings.Contains(answer, want) {
		t.Errorf("the API manager was not called with the present token, but answered %s", e.scrub(answer))
	}
	e.requireAccepted(1)
	e.requireDiscreet(answer)
}

func TestExampleProgramInGo(t *testing.T) {
	t.Parallel()
	e := newExampleInPlace(t, "go", 2)
	// The home directory is another, and the caches would be too.
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		dir, err := exec.Command("go", "env", name).Output()
		e.check(err)
		e.more = append(e.more, name+"="+strings.TrimSpace(string(dir)))
	}
	// As the plugin was built, so that what they share need not be compiled again.
	e.more = append(e.more, "CGO_ENABLED=0")
	e.requireProgram()
}

func TestExampleProgramInPython(t *testing.T) {
	t.Parallel()
	needs(t, "hvac for /usr/bin/python3 (python3-hvac)", "/usr/bin/python3", "-c", "import hvac, requests")
	newExample(t, "python", 2).requireProgram()
}

func TestExampleProgramInNode(t *testing.T) {
	t.Parallel()
	needs(t, "node", "node", "--version")
	needs(t, "node-vault (npm ci in examples/node)", "npm", "ls", "--prefix", "../../examples/node", "node-vault")
	newExampleInPlace(t, "node", 2).requireProgram()
}

// requireProgram runs a program that keeps a token, with everything against it:
// without its policy, without it for a while, and with a token service that fails
// for a while.
func (e *example) requireProgram() {
	e.Helper()
	e.requireItExplainsAMissingPolicy()
	e.mustRun(0)
	program := e.start(1)
	first := e.waitForPresentToken(program)

	e.check(e.client.Sys().DeletePolicy("apic-us-south"))
	e.waitForText(program, "permission denied")
	e.waitForText(program, "going on with a token that is valid until")
	e.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable})
	e.mustRun(0)
	e.waitForText(program, "This token is due for replacement")
	e.sim.ClearFault()
	program.waitUntil("the program has used another token", func() bool {
		current := e.currentTokenID()
		return current != first && e.saidAccepted(program, current)
	})
	e.requireAccepted(4)
	program.stop()
	e.requireDiscreet(program.said.String())
}

func (e *example) requireItExplainsAMissingPolicy() {
	e.Helper()
	said, err := e.run(1)
	if err == nil {
		e.Error("without the policy the program succeeds")
	}
	for _, part := range []string{"permission denied", "policy of this Vault token grant read on apic/token/us-south"} {
		if !strings.Contains(said, part) {
			e.Errorf("without the policy the program does not say %q but\n%s", part, e.scrub(said))
		}
	}
	e.requireNowhere("the error", said, e.jwtHeader)
}

func (e *example) waitForText(program *process, text string) {
	e.Helper()
	program.waitUntil("the program has said "+text, func() bool { return strings.Contains(program.said.String(), text) })
}

// waitForPresentToken returns the id of a token that the program has used while it was the present
// one. A program that is still to be compiled comes after the token that was it in the beginning.
func (e *example) waitForPresentToken(program *process) (id string) {
	e.Helper()
	program.waitUntil("the program has used the present token", func() bool {
		id = e.currentTokenID()
		return e.saidAccepted(program, id)
	})
	return id
}

func (e *example) saidAccepted(program *process, id string) bool {
	return strings.Contains(program.said.String(), e.service.URL()+"/api/me answers 200 to token "+id)
}
