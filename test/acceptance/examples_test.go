// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const exampleConfig = "us-south"

// example is a folder of examples/, run by the commands of its README as they
// stand there.
type example struct {
	*stack
	dir    string
	blocks []string
	// more is what the environment of the commands has beside the usual.
	more []string
	// jwtHeader is what every token begins with.
	jwtHeader string
}

// newExample mounts a config whose tokens live 20 s and are replaced after 10 s,
// and copies an example's folder, whose README has so many blocks of commands.
func newExample(t *testing.T, name string, blocks int) *example {
	t.Helper()
	e := newExampleInPlace(t, name, blocks)
	source := e.dir
	e.dir = e.path(name)
	e.check(os.CopyFS(e.dir, os.DirFS(source)))
	return e
}

// newExampleInPlace is for an example that runs only where it lies, and writes
// nothing there.
func newExampleInPlace(t *testing.T, name string, blocks int) *example {
	t.Helper()
	dir, err := filepath.Abs("../../examples/" + name)
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	e := &example{dir: dir, blocks: codeBlocks(string(readme))}
	if len(e.blocks) != blocks {
		t.Fatalf("the README of %s has %d blocks of commands, want %d", name, len(e.blocks), blocks)
	}
	e.stack = newStack(t)
	e.sim.SetTokenTTL(20 * time.Second)
	e.writeConfig(exampleConfig, map[string]any{"refresh_before": "10s"})
	e.jwtHeader, _, _ = strings.Cut(e.readToken(exampleConfig).Data["token"].(string), ".")
	e.makePath()
	return e
}

// codeBlocks are the indented parts of a Markdown text.
func codeBlocks(markdown string) (blocks []string) {
	for _, paragraph := range strings.Split(markdown, "\n\n") {
		if strings.HasPrefix(paragraph, "    ") {
			blocks = append(blocks, paragraph)
		}
	}
	return blocks
}

// makePath makes a directory for PATH with the Vault server under its usual name,
// and a curl that notes its arguments before it does its work.
func (e *example) makePath() {
	e.Helper()
	e.check(os.Mkdir(e.path("bin"), 0o700))
	vault, err := exec.LookPath(vaultBinary)
	e.check(err)
	vault, err = filepath.Abs(vault)
	e.check(err)
	e.check(os.Symlink(vault, e.path("bin/vault")))
	curl, err := exec.LookPath("curl")
	if err != nil {
		return
	}
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" >>'" + e.path("curl-arguments") + "'\nexec '" + curl + "' \"$@\"\n"
	e.check(os.WriteFile(e.path("bin/curl"), []byte(script), 0o700))
}

// needs skips the test where a command of the examples is missing. In CI, which
// installs them all, it fails.
func needs(t *testing.T, what string, command ...string) {
	t.Helper()
	if exec.Command(command[0], command[1:]...).Run() == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", what)
	}
	t.Skipf("%s is missing; .ci/run installs it", what)
}

// builtTool is the path in a variable that make test-examples sets; building these
// takes minutes, which a run of all tests does not wait for.
func builtTool(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Skipf("%s names no file; see make test-examples", variable)
	}
	return path
}

// addBlock gives the example a block of commands that its README does not have.
func (e *example) addBlock(commands string) (block int) {
	e.blocks = append(e.blocks, commands)
	return len(e.blocks) - 1
}

// command is a README's block in the hands of an operator: it has the root token.
func (e *example) command(ctx context.Context, block int) *exec.Cmd {
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", e.blocks[block])
	command.Dir = e.dir
	command.Env = append(e.environment(),
		"PATH="+e.path("bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
		"VAULT_ADDR="+e.client.Address(), "VAULT_TOKEN="+e.client.Token(),
		// Not every consumer leaves loopback out when there is a proxy.
		"NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	command.Env = append(command.Env, e.more...)
	return command
}

// run runs a block to its end, and answers what it printed.
func (e *example) run(block int) (string, error) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	output, err := e.command(ctx, block).CombinedOutput()
	return string(output), err
}

func (e *example) mustRun(block int) string {
	e.Helper()
	output, err := e.run(block)
	if err != nil {
		e.Fatalf("the commands\n%s\nfailed: %v\n%s", e.blocks[block], err, e.scrub(output))
	}
	return output
}

// currentTokenID is the ID of the token that readers share now.
func (e *example) currentTokenID() string {
	e.Helper()
	return e.readToken(exampleConfig).Data["token_id"].(string)
}

// scrub makes an output fit to be printed.
func (e *example) scrub(output string) string {
	jwts := regexp.MustCompile(regexp.QuoteMeta(e.jwtHeader) + `[.\w-]*`)
	return jwts.ReplaceAllString(strings.ReplaceAll(output, e.key, "[the key]"), "[a token]")
}

// requireAccepted fails unless the API manager was called at least so often, and
// took every token.
func (e *example) requireAccepted(calls int) {
	e.Helper()
	if counts := e.sim.Counts(); counts.MeAccepted < calls || counts.MeRefused > 0 {
		e.Errorf("the API manager accepted %d of at least %d calls and refused %d", counts.MeAccepted, calls, counts.MeRefused)
	}
}

// requireDiscreet fails if the key is in an output or in a file of the example, or
// a token in an output or on the command line of curl.
func (e *example) requireDiscreet(output string) {
	e.Helper()
	e.requireNowhere("the output", output, e.jwtHeader)
	if arguments, err := os.ReadFile(e.path("curl-arguments")); err == nil {
		e.requireNowhere("the command line of curl", string(arguments), e.jwtHeader)
	}
	for _, dir := range []string{e.dir, e.path("home")} {
		e.check(filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || strings.Contains(path, "node_modules") {
				return err
			}
			content, err := os.ReadFile(path)
			if len(content) > 0 {
				e.requireNowhere(path, string(content))
			}
			return err
		}))
	}
}
