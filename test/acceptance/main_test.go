// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const pluginName = "vault-plugin-secrets-apic"

// The binaries under test, set by TestMain before any test runs.
var vaultBinary, pluginBinary, barePluginBinary, steppedPluginBinary string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "acceptance tests cannot start:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "apic-acceptance")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if vaultBinary, err = findVault(); err != nil {
		return 1, err
	}
	pluginBinary, barePluginBinary, steppedPluginBinary = filepath.Join(dir, pluginName), filepath.Join(dir, "bare"), filepath.Join(dir, "stepped")
	if err := build(pluginBinary, "../../cmd/"+pluginName, "-ldflags", "-X main.version="+pluginVersion); err != nil {
		return 1, err
	}
	if err := build(barePluginBinary, "../bench/floor"); err != nil {
		return 1, err
	}
	if err := build(steppedPluginBinary, "./steppedplugin"); err != nil {
		return 1, err
	}
	version, err := exec.Command(vaultBinary, "version").Output()
	if err != nil {
		return 1, err
	}
	serverVersion = string(bytes.TrimSpace(version))
	fmt.Printf("acceptance tests run against %s\n", serverVersion)
	return m.Run(), nil
}

func build(output, source string, flags ...string) error {
	build := exec.Command("go", slices.Concat([]string{"build", "-C", source, "-o", output}, flags, []string{"."})...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", source, err, said)
	}
	return nil
}

// findVault takes the server that VAULT_SERVER names, or has one found or built.
func findVault() (string, error) {
	if path := os.Getenv("VAULT_SERVER"); path != "" {
		return path, nil
	}
	find := exec.Command("../../scripts/vault.sh")
	find.Stderr = os.Stderr
	path, err := find.Output()
	return strings.TrimSpace(string(path)), err
}
