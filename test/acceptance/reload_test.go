// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// TestReload_failsReadsOfMountsInTheSameProcess runs the same with a plugin that
// answers a constant: Vault ends the process that the mounts of one plugin share, and
// what is under way in it nobody can keep.
func TestReload_failsReadsOfMountsInTheSameProcess(t *testing.T) {
	t.Parallel()
	bare := newBareStack(t)
	bare.mountSecond(pluginName)
	bare.reloadSecondUnderLoad()
	s := newStack(t)
	s.mountSecond(pluginName)
	s.writeConfig("us-south", nil)
	for _, r := range s.reloadSecondUnderLoad() {
		if !strings.Contains(r.err.Error(), "rpc error") && !strings.Contains(r.err.Error(), "plugin is shut down") {
			t.Errorf("a read failed otherwise than by the end of the process: %v", r.err)
		}
	}
}

// TestReload_failsNoReadOfAnotherCatalogueName is how docs/operations.md keeps mounts
// apart.
func TestReload_failsNoReadOfAnotherCatalogueName(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const name = pluginName + "-second"
	s.check(s.client.Sys().RegisterPlugin(&api.RegisterPluginInput{
		Name: name, Type: api.PluginTypeSecrets, Command: pluginName,
		Version: pluginVersion, SHA256: s.sha256(pluginBinary),
	}))
	s.mountSecond(name)
	s.writeConfig("us-south", nil)
	if lost := s.reloadSecondUnderLoad(); len(lost) > 0 {
		t.Errorf("%d reads failed, the first with: %v", len(lost), lost[0].err)
	}
}

func (s *stack) mountSecond(plugin string) {
	s.Helper()
	s.check(s.client.Sys().Mount("second", &api.MountInput{Type: plugin}))
}

// reloadSecondUnderLoad reloads one mount five times while eight clients read from
// the other, and returns those of their reads that failed.
func (s *stack) reloadSecondUnderLoad() (lost []reading) {
	s.Helper()
	const reloads = 5
	stop := s.crowd(8, 2*time.Millisecond, "us-south")
	s.eventually("the clients can read", func() bool { return readOnce(s.client, "us-south").err == nil })
	for range reloads {
		s.mustCLI("write", "sys/plugins/reload/backend", "mounts=second/")
		s.eventually("the clients can read again", func() bool { return readOnce(s.client, "us-south").err == nil })
	}
	readings := stop()
	lost = failed(readings)
	s.Logf("%s: %d of %d reads of another mount failed in %d reloads", filepath.Base(s.plugin), len(lost), len(readings), reloads)
	return lost
}
