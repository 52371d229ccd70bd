// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// pluginName is the name of the file in Vault's plugin directory, before the version.
const pluginName = "vault-plugin-secrets-apic"

// install copies this program into the directory that is the only argument, for an init container
// whose image has neither a shell nor cp. It prints a line as sha256sum does: the digest that
// `vault plugin register` wants, and the file's path.
func install(args []string, stdout io.Writer) error {
	if len(args) != 1 || args[0] == "" {
		return errors.New("install needs one argument, the directory; give it Vault's plugin_directory")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("install: finding this program: %w", err)
	}
	// The name has the version, so that the next version's file does not replace this one under a mount
	// that still runs it.
	target := filepath.Join(args[0], pluginName+"-"+version)
	digest, err := copyProgram(self, target)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "%x  %s\n", digest, target)
	return err
}

// copyProgram puts a copy at target, executable for everybody, and returns its SHA-256. The copy is
// written beside the target and renamed, so that Vault never starts half of it, and a process that
// runs the old file keeps it.
func copyProgram(source, target string) (digest []byte, err error) {
	from, err := os.Open(source)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(target), ".install-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = to.Close()
			_ = os.Remove(to.Name())
		}
	}()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, sum), from); err != nil {
		return nil, err
	}
	// The umask has no say in this.
	if err := to.Chmod(0o755); err != nil {
		return nil, err
	}
	if err := to.Sync(); err != nil {
		return nil, err
	}
	if err := to.Close(); err != nil {
		return nil, err
	}
	return sum.Sum(nil), os.Rename(to.Name(), target)
}
