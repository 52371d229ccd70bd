// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const pluginName = "vault-plugin-secrets-apic"

// The binaries under test, set by TestMain before any test runs.
var vaultBinary, pluginBinary string

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
	pluginBinary = filepath.Join(dir, pluginName)
	build := exec.Command("go", "build", "-ldflags", "-X main.version="+pluginVersion, "-o", pluginBinary, "../../cmd/"+pluginName)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the plugin: %w\n%s", err, output)
	}
	version, err := exec.Command(vaultBinary, "version").Output()
	if err != nil {
		return 1, err
	}
	fmt.Printf("acceptance tests run against %s\n", bytes.TrimSpace(version))
	return m.Run(), nil
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
