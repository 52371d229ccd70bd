// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	// oldVersion and newVersion are what the two builds of an upgrade report.
	oldVersion, newVersion = "v0.1.0", "v0.2.0"

	// previousSource is the commit that the old build is made of: the last one
	// before keys were rotated and services watched. What its configs look like in
	// storage is also kept in testdata/ beside config.go.
	previousSource = "fe4bc6f3ec5fec4cc6595b7e117ff5701b1afd70"
)

// release builds the plugin from a directory of source, as a release of it would be.
func (s *stack) release(source, version string) (path string) {
	s.Helper()
	path = s.path("release-" + version)
	build := exec.Command("go", "build", "-o", path, "-ldflags", "-X main.version="+version, "./cmd/"+pluginName)
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		s.Fatalf("building %s: %v\n%s", version, err, said)
	}
	return path
}

// presentSource is where the present build's source is.
const presentSource = "../.."

// previousSourceTree unpacks the previous build's source. Where the history does
// not reach so far, as in a shallow clone or an archive, it is the present one,
// which still shows that a mount moves between two versions.
func (s *stack) previousSourceTree() string {
	s.Helper()
	archive := exec.Command("git", "archive", "--format=tar", previousSource)
	archive.Dir = presentSource
	packed, err := archive.Output()
	if err != nil {
		s.Logf("no commit %s here: the old build is made of the present source", previousSource[:7])
		return presentSource
	}
	dir := s.path("previous")
	s.check(os.Mkdir(dir, 0o700))
	unpack := exec.Command("tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(packed)
	if said, err := unpack.CombinedOutput(); err != nil {
		s.Fatalf("unpacking the previous source: %v\n%s", err, said)
	}
	return dir
}

// operate follows a section of docs/operations.md with a build of the plugin at
// hand.
func (s *stack) operate(heading, release, version string, variables ...string) string {
	s.Helper()
	binary, err := os.ReadFile(release)
	s.check(err)
	s.check(os.WriteFile(s.path(pluginName), binary, 0o755))
	digest := sha256.Sum256(binary)
	return s.runDocumented("operations.md", heading, append(variables,
		"PLUGIN_DIR="+s.path("plugins"), "VERSION="+version, "SHA256="+hex.EncodeToString(digest[:]))...)
}

func (s *stack) requireRunning(version string) {
	s.Helper()
	mounts, err := s.client.Sys().ListMounts()
	s.check(err)
	if got := mounts["apic/"].RunningVersion; got != version {
		s.Fatalf("the mount runs %q, want %q", got, version)
	}
}

// everyConfig are configs of all token services, with a field of each kind set.
func (s *stack) everyConfig() map[string]map[string]any {
	return map[string]map[string]any{
		"us-south": nil,
		"tuned":    {"region": "eu-gb", "request_timeout": "7s", "max_retries": 4, "refresh_before": "5m", "cache": false},
		"leased":   {"lease": true},
		"iam":      {"token_service": "iam", "token_url": s.service.URL() + "/identity/token"},
		"platform": {"token_service": "platform", "token_url": s.service.URL() + "/api/token", "client_id": "id", "client_secret": "secret", "verify": false},
	}
}

func (s *stack) readConfigs(names map[string]map[string]any) map[string]*api.Secret {
	s.Helper()
	configs := make(map[string]*api.Secret)
	for name := range names {
		config, err := s.client.Logical().Read("apic/config/" + name)
		s.check(err)
		if config == nil {
			s.Fatalf("there is no config %s", name)
		}
		configs[name] = config
	}
	return configs
}

// requireSameConfigs holds that what the old build answers of its configs the
// other one answers too. Fields that the old one does not know are the other's own.
func (s *stack) requireSameConfigs(before map[string]*api.Secret, after map[string]*api.Secret) {
	s.Helper()
	for name, config := range before {
		for field, want := range config.Data {
			if got := after[name].Data[field]; !sameJSON(got, want) {
				s.Errorf("%s of the config %s was %v and is %v", field, name, want, got)
			}
		}
	}
}

// requireTooNew holds that the old build does not read, and does not change, a
// config that uses what it does not know.
func (s *stack) requireTooNew(name string) {
	s.Helper()
	_, err := s.client.Logical().Read("apic/token/" + name)
	if status(err) != http.StatusInternalServerError || !strings.Contains(err.Error(), "newer version of the plugin") {
		s.Errorf("the old build reads a config of a newer form: %v", err)
	}
	_, err = s.client.Logical().Write("apic/config/"+name, map[string]any{"max_retries": 1})
	if status(err) != http.StatusInternalServerError {
		s.Errorf("the old build writes a config of a newer form: %v", err)
	}
}

// TestAnUpgradeAndARollBackFailNoRead follows docs/operations.md from the previous
// build to the present one and back, while clients read.
func TestAnUpgradeAndARollBackFailNoRead(t *testing.T) {
	t.Parallel()
	s := newUnmountedStack(t, onRaft, pluginBinary)
	previous := s.previousSourceTree()
	old, present := s.release(previous, oldVersion), s.release(presentSource, newVersion)
	s.operate("## Install", old, oldVersion)
	s.requireRunning(oldVersion)
	configs := s.everyConfig()
	for name, fields := range configs {
		s.writeConfig(name, fields)
	}
	before := s.readConfigs(configs)
	leased := s.readToken("leased")

	stop := s.crowd(8, 2*time.Millisecond, "us-south")
	for _, move := range []struct{ heading, release, version, running string }{
		{"## Upgrade", present, newVersion, newVersion},
		{"## Roll back", old, oldVersion, oldVersion},
		{"## Pin all mounts at once", present, newVersion, newVersion},
	} {
		s.readOften("us-south")
		s.operate(move.heading, move.release, move.version, "OLD_VERSION="+oldVersion)
		s.requireRunning(move.running)
		s.readOften("us-south")
		s.requireSameConfigs(before, s.readConfigs(configs))
		for _, name := range []string{"us-south", "tuned", "leased", "iam"} {
			s.readToken(name)
		}
		switch {
		case move.running == oldVersion && previous != presentSource:
			s.requireTooNew("scheduled")
		case move.running == newVersion:
			s.writeConfig("scheduled", map[string]any{"rotation_period": "24h", "iam_url": s.service.URL()})
			s.readToken("scheduled")
		}
	}
	readings := stop()
	requireAllAnswered(t, readings)
	t.Logf("%d reads through three moves, the slowest in %s", len(readings), slowest(readings).Round(time.Millisecond))

	// A lease outlives the process that gave it.
	s.check(s.client.Sys().Revoke(leased.LeaseID))
	s.mustCLI("delete", "sys/plugins/pins/secret/"+pluginName)
	s.operate("## Network", present, newVersion)
	s.requireRunning(oldVersion)
	s.readToken("us-south")
}

// TestAfterAFailedReloadTheOldVersionServes is what docs/operations.md promises of
// an upgrade to a file that is not the one registered.
func TestAfterAFailedReloadTheOldVersionServes(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	present := s.release(presentSource, newVersion)
	s.writeConfig("us-south", nil)
	s.check(os.WriteFile(s.path("plugins/spoilt"), []byte("#!/bin/false\n"), 0o755))
	binary, err := os.ReadFile(present)
	s.check(err)
	digest := sha256.Sum256(binary)
	s.mustCLI("plugin", "register", "-version="+newVersion, "-command=spoilt", "-sha256="+hex.EncodeToString(digest[:]), "secret", pluginName)
	s.mustCLI("secrets", "tune", "-plugin-version="+newVersion, "apic/")
	if output, err := s.cli("write", "sys/plugins/reload/backend", "mounts=apic/"); err == nil {
		t.Fatalf("a file with a wrong digest was run:\n%s", output)
	}
	s.requireRunning(pluginVersion)
	s.readToken("us-south")
	s.check(os.Remove(s.path("plugins/spoilt")))
	s.check(os.Link(present, s.path("plugins/spoilt")))
	s.mustCLI("write", "sys/plugins/reload/backend", "mounts=apic/")
	s.requireRunning(newVersion)
	s.readToken("us-south")
}

// TestAfterARestoreTheConfigsWithDeletedKeysAreFound loses a key's change with a
// restored snapshot, and mends it as docs/operations.md says.
func TestAfterARestoreTheConfigsWithDeletedKeysAreFound(t *testing.T) {
	t.Parallel()
	s := newRaftStack(t)
	s.writeConfig("us-south", nil)
	s.sim.AddKey("kept-" + s.key)
	s.writeConfig("eu-gb", map[string]any{"api_key": "kept-" + s.key})
	s.runDocumented("operations.md", "## Backup and disaster recovery")

	replaceKey := func() {
		s.runDocumented("operations.md", "## When a key leaks", "TOKEN_URL="+s.service.URL()+"/apikey", "API_URL="+s.service.URL())
	}
	for _, next := range []string{"second-" + s.key, "third-" + s.key} {
		s.sim.AddKey(next)
		s.check(os.WriteFile(s.path("apikey.json"), []byte(`{"apikey":"`+next+`"}`), 0o600))
		replaceKey()
	}
	s.sim.RevokeKey(s.key)
	s.sim.RevokeKey("second-" + s.key)
	s.readToken("us-south")

	s.runDocumented("operations.md", "### Restore")
	s.eventually("vault serves the restored storage", func() bool {
		return readOnce(s.client, "eu-gb").err == nil
	})
	output := s.runDocumented("operations.md", "### Find the keys that are gone")
	if want := "needs a new key: us-south"; !strings.Contains(output, want) || strings.Contains(output, "new key: eu-gb") {
		t.Errorf("want %q alone in\n%s", want, output)
	}
	s.requireNowhere("what the document's commands print", output)
	replaceKey()
	s.readToken("us-south")
}
