// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	// oldVersion and newVersion are what the two builds of an upgrade report.
	oldVersion, newVersion = "v0.1.0", "v0.2.0"
)

// release builds the plugin as a release would be. All builds store configs in one form
// so far, so that two of the present source differ in their version alone.
func (s *stack) release(version string) (path string) {
	s.Helper()
	path = s.path("release-" + version)
	s.check(build(path, "../../cmd/"+pluginName, "-ldflags", "-X main.version="+version))
	return path
}

// operate follows a section of docs/operations.md with a given build of the
// plugin.
func (s *stack) operate(heading, release, version string, variables ...string) string {
	s.Helper()
	binary, err := os.ReadFile(release)
	s.check(err)
	s.check(os.WriteFile(s.path(pluginName), binary, 0o755))
	return s.runDocumented("operations.md", heading, append(variables,
		"PLUGIN_DIR="+s.path("plugins"), "VERSION="+version, "SHA256="+s.sha256(release))...)
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
		config := s.read("apic/config/" + name)
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

// requireTooNew holds that a build does not read, and does not change, a config of a
// form that it does not know.
func (s *stack) requireTooNew(name string) {
	s.Helper()
	stored := s.stored(name)
	_, err := s.client.Logical().Read("apic/token/" + name)
	if status(err) != http.StatusInternalServerError || !strings.Contains(err.Error(), "newer version of the plugin") {
		s.Errorf("the build reads a config of a newer form: %v", err)
	}
	_, err = s.client.Logical().Write("apic/config/"+name, map[string]any{"max_retries": 1})
	if status(err) != http.StatusInternalServerError || s.stored(name) != stored {
		s.Errorf("the build writes a config of a newer form: %v", err)
	}
}

// TestUpgrade_andRollbackFailNoRead follows docs/operations.md from one build to the
// next and back, while clients read. The newer one leaves a config behind whose form
// the older one does not know.
func TestUpgrade_andRollbackFailNoRead(t *testing.T) {
	t.Parallel()
	s := newUnmountedStack(t, withRawStorage, pluginBinary)
	old, present := s.release(oldVersion), s.release(newVersion)
	s.operate("## Install", old, oldVersion)
	s.requireRunning(oldVersion)
	configs := s.everyConfig()
	for name, fields := range configs {
		s.writeConfig(name, fields)
	}
	s.writeConfig("newer", nil)
	before := s.readConfigs(configs)
	leased := s.readToken("leased")

	stop := s.crowd(8, 2*time.Millisecond, "us-south")
	type move struct {
		heading, release, version string
		schema                    int
	}
	moves := []move{{"## Upgrade", present, newVersion, 1}, {"## Roll back", old, oldVersion, 2}}
	if !isOpenBao() { // It knows no pins.
		moves = append(moves, move{"## Pin all mounts at once", present, newVersion, 1})
	}
	for _, move := range moves {
		s.readOften("us-south")
		s.editStored("newer", func(stored map[string]any) { stored["schema"] = move.schema })
		s.operate(move.heading, move.release, move.version, "OLD_VERSION="+oldVersion)
		s.requireRunning(move.version)
		s.readOften("us-south")
		s.requireSameConfigs(before, s.readConfigs(configs))
		for _, name := range []string{"us-south", "tuned", "leased", "iam"} {
			s.readToken(name)
		}
		if move.schema == 1 {
			s.readToken("newer")
		} else {
			s.requireTooNew("newer")
		}
	}
	readings := stop()
	requireAllAnswered(t, readings)
	t.Logf("%d reads through %d moves, the slowest in %s", len(readings), len(moves), slowest(readings).Round(time.Millisecond))

	// A lease outlives the process that gave it.
	s.check(s.client.Sys().Revoke(leased.LeaseID))
	if isOpenBao() {
		return // It registers no environment for a plugin either.
	}
	s.mustCLI("delete", "sys/plugins/pins/secret/"+pluginName)
	s.operate("## Network", present, newVersion)
	s.requireRunning(oldVersion)
	s.readToken("us-south")
}

// TestUpgrade_failedReloadKeepsTheOldVersion is what docs/operations.md promises of an
// upgrade to a file that is not the one registered.
func TestUpgrade_failedReloadKeepsTheOldVersion(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	present := s.release(newVersion)
	s.writeConfig("us-south", nil)
	s.check(os.WriteFile(s.path("plugins/spoilt"), []byte("#!/bin/false\n"), 0o755))
	s.mustCLI("plugin", "register", "-version="+newVersion, "-command=spoilt", "-sha256="+s.sha256(present), "secret", pluginName)
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
