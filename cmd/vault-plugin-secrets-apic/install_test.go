// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestInstall_copiesItself installs the test's own program, which is what runs.
func TestInstall_copiesItself(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "vault-plugin-secrets-apic-"+version)
	// An earlier file that nobody may execute is replaced, not written into: a process that has it open keeps it.
	if err := os.WriteFile(target, []byte("earlier"), 0o600); err != nil {
		t.Fatal(err)
	}
	earlier, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer earlier.Close()

	var stdout bytes.Buffer
	if err := install([]string{dir}, &stdout); err != nil {
		t.Fatal(err)
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the copy differs from the program")
	}
	if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(want), target); stdout.String() != line {
		t.Errorf("it printed %q, not %q", stdout.String(), line)
	}
	info, err := os.Stat(target)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o755 {
		t.Errorf("its mode is %v", info.Mode())
	}
	content := make([]byte, len("earlier"))
	if _, err := earlier.Read(content); err != nil || string(content) != "earlier" {
		t.Errorf("the earlier file reads %q, %v", content, err)
	}
	onlyFile(t, dir, filepath.Base(target))
}

// TestInstall_failed leaves nothing behind and prints no digest.
func TestInstall_failed(t *testing.T) {
	// A directory in the target's place, which no file replaces.
	occupied := t.TempDir()
	target := "vault-plugin-secrets-apic-" + version
	if err := os.MkdirAll(filepath.Join(occupied, target, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"no directory", nil},
		{"an empty directory", []string{""}},
		{"two directories", []string{occupied, occupied}},
		{"a missing directory", []string{filepath.Join(occupied, "missing")}},
		{"an occupied target", []string{occupied}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout bytes.Buffer
			if err := install(c.args, &stdout); err == nil {
				t.Error("it succeeded")
			}
			if stdout.Len() > 0 {
				t.Errorf("it printed %q", stdout.String())
			}
			onlyFile(t, occupied, target)
		})
	}
}

// onlyFile holds that the directory has this entry and no other.
func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the directory has %v", entries)
	}
}
