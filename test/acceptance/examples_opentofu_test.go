// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestExampleOpenTofu_asItStands is for a provider that knows all that the example
// has, whose file VAULT_PROVIDER names. The module proxy has none that is new enough.
func TestExampleOpenTofu_asItStands(t *testing.T) {
	t.Parallel()
	provider := builtTool(t, "VAULT_PROVIDER")
	e := newOpenTofuExample(t, provider, "5.99.0")
	said := e.mustRun(0) + e.writeKeyByCLI() + e.mustRun(2) + e.mustRun(3)
	e.requireAccepted(1)
	e.requireSettings()

	said += e.mustRun(e.addBlock("tofu -chdir=token plan -out=plan"))
	e.requireNothingInPlan("token/plan")
	e.requireNoTokenIn(e.dir)
	e.requireDiscreet(said)
}

// TestExampleOpenTofu_oldProvider runs what the newest provider that the module
// proxy has knows of the example, and stand-ins for the rest.
func TestExampleOpenTofu_oldProvider(t *testing.T) {
	t.Parallel()
	provider := builtTool(t, "OLD_VAULT_PROVIDER")
	e := newOpenTofuExample(t, provider, "1.9.0")
	e.check(os.RemoveAll(filepath.Join(e.dir, "token")))
	for _, file := range []string{"engine/plugin.tf", "engine/role.tf"} {
		e.check(os.Remove(filepath.Join(e.dir, file)))
	}
	e.check(os.CopyFS(e.dir, os.DirFS("testdata/opentofu")))
	for _, file := range []string{"engine/main.tf", "config/main.tf"} {
		e.replaceInFile(file, `">= 5.8"`, `"1.9.0"`)
	}
	said := e.mustRun(0) + e.writeKeyByCLI() + e.mustRun(2)
	e.requireSettings()
	e.requireNoTokenIn(e.dir)
	e.requireDiscreet(said)

	// The role's Vault token may not make the one that this provider wants for itself.
	e.blocks[3] = "tofu -chdir=token init && tofu -chdir=token apply"
	said = e.mustRun(3)
	e.requireDiscreet(said)
	state, err := os.ReadFile(filepath.Join(e.dir, "token/terraform.tfstate"))
	e.check(err)
	if !strings.Contains(string(state), e.jwtHeader) {
		t.Error("a data source no longer puts the token into the state, and no ephemeral resource is needed")
	}
}

// newOpenTofuExample has nothing mounted at apic/, and a mirror that has the provider
// as this version, which no file says of itself.
func newOpenTofuExample(t *testing.T, provider, version string) *example {
	t.Helper()
	tofu := builtTool(t, "TOFU")
	e := newExample(t, "opentofu", 4)
	e.check(e.client.Sys().Unmount("apic"))
	e.check(os.Symlink(tofu, e.path("bin/tofu")))

	target := filepath.Join("registry.opentofu.org/hashicorp/vault", version, runtime.GOOS+"_"+runtime.GOARCH)
	e.check(os.MkdirAll(e.path("mirror/"+target), 0o700))
	e.check(os.Symlink(provider, e.path(filepath.Join("mirror", target, "terraform-provider-vault_v"+version))))
	e.check(os.WriteFile(e.path("tofurc"), fmt.Appendf(nil, "provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", e.path("mirror")), 0o600))
	e.more = []string{"TF_CLI_CONFIG_FILE=" + e.path("tofurc"), "TF_CLI_ARGS_apply=-auto-approve", "TF_INPUT=0", "CHECKPOINT_DISABLE=1"}

	e.blocks[0] = strings.Replace(e.blocks[0], "plugin_version=v0.1.0", "plugin_version="+pluginVersion, 1)
	e.blocks[0] = strings.Replace(e.blocks[0], "/path/to/"+pluginName, e.plugin, 1)
	e.blocks[1] += fmt.Sprintf(" token_url=%[1]s/apikey api_url=%[1]s iam_url=%[1]s", e.service.URL())
	return e
}

// writeKeyByCLI runs the block that does so, and has the key's file only as long.
func (e *example) writeKeyByCLI() string {
	e.Helper()
	key, err := json.Marshal(map[string]string{"apikey": e.key})
	e.check(err)
	file := filepath.Join(e.dir, "apikey.json")
	e.check(os.WriteFile(file, key, 0o600))
	said := e.mustRun(1)
	e.check(os.Remove(file))
	return said
}

func (e *example) replaceInFile(name, old, replacement string) {
	e.Helper()
	path := filepath.Join(e.dir, name)
	text, err := os.ReadFile(path)
	e.check(err)
	if !strings.Contains(string(text), old) {
		e.Fatalf("%s does not have %s", name, old)
	}
	e.check(os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, replacement)), 0o600))
}

// requireSettings fails unless the config has what the example gives it, OpenTofu
// wants no change of that, and the config's tokens are accepted.
func (e *example) requireSettings() {
	e.Helper()
	config := e.read("apic/config/" + exampleConfig)
	if got := fmt.Sprintf("%v %v", config.Data["rotation_period"], config.Data["rotation_grace_period"]); got != "2592000 600" {
		e.Errorf("the rotation has period and grace period %s", got)
	}
	if said, err := e.run(e.addBlock("tofu -chdir=config plan -detailed-exitcode")); err != nil {
		e.Errorf("OpenTofu wants a change: %v\n%s", err, e.scrub(said))
	}
	if got := e.callMe(e.readToken(exampleConfig).Data["token"].(string)); got != http.StatusOK {
		e.Errorf("the API manager answered %d to the token", got)
	}
}

// requireNothingInPlan looks into a plan, whose parts are compressed.
func (e *example) requireNothingInPlan(name string) {
	e.Helper()
	plan, err := zip.OpenReader(filepath.Join(e.dir, name))
	e.check(err)
	defer plan.Close()
	if len(plan.File) == 0 {
		e.Error("the plan is empty")
	}
	for _, file := range plan.File {
		part, err := file.Open()
		e.check(err)
		content, err := io.ReadAll(part)
		e.check(err)
		e.requireNowhere("the plan's "+file.Name, string(content), e.jwtHeader)
	}
}

// TestExampleOpenTofu_isFormatted holds the example to the style of tofu fmt.
func TestExampleOpenTofu_isFormatted(t *testing.T) {
	t.Parallel()
	format := exec.Command(builtTool(t, "TOFU"), "fmt", "-check", "-diff", "-recursive", "../../examples/opentofu", "testdata/opentofu")
	if said, err := format.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}
