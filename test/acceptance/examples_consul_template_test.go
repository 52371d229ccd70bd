// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestExampleConsulTemplateKeepsAnEnvironmentFile(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newExample(t, "consul-template", 3)
	// Built as its module pins it; what was compiled before comes from Go's cache.
	build := exec.CommandContext(t.Context(), "go", "build", "-o", e.path("bin/consul-template"), "github.com/hashicorp/consul-template")
	build.Dir = "../consul-template"
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly", "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building consul-template: %v\n%s", err, output)
	}
	e.mustRun(0)
	renderer := e.start(1)
	first := e.waitForFile(renderer, e.dir+"/apic.env", "")
	answers := e.mustRun(2)
	e.requireOwnersOnly(e.dir + "/apic.env")
	e.requireEnvironmentFile(first)

	e.waitForFile(renderer, e.dir+"/apic.env", first)
	answers += e.mustRun(2)
	if want := e.currentTokenID(); !strings.Contains(answers, want) {
		t.Errorf("the API manager was not called with the present token, but answered %s", e.scrub(answers))
	}
	e.requireAccepted(2)
	renderer.stop()
	e.requireDiscreet(renderer.said.String() + answers)
}
