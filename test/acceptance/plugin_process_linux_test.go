// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPluginProcess_killedStartsAgain compares with a plugin that answers a constant,
// killed in the same way: what that one loses nobody can keep.
func TestPluginProcess_killedStartsAgain(t *testing.T) {
	t.Parallel()
	const clients = 8
	bare := newBareStack(t).killUnderLoad(clients)
	s := newStack(t)
	s.writeConfig("us-south", nil)
	before := s.sim.Counts().Issued
	ours := s.killUnderLoad(clients)
	if s.sim.Counts().Issued == before {
		t.Error("the plugin that was started again got no token")
	}
	// Each client may have met the dead process once or twice.
	if ours > bare+2*clients {
		t.Errorf("%d reads failed, with a bare plugin %d", ours, bare)
	}
}

// killUnderLoad kills the plugin while clients read, waits until another process
// serves them, and returns how many reads failed.
func (s *stack) killUnderLoad(clients int) (failures int) {
	s.Helper()
	stop := s.crowd(clients, 2*time.Millisecond, "us-south")
	s.readOften("us-south")
	killed := s.pluginPIDs()
	if len(killed) == 0 {
		s.Fatal("the server has no plugin process")
	}
	for _, pid := range killed {
		s.check(syscall.Kill(pid, syscall.SIGKILL))
	}
	began := time.Now()
	s.eventually("another process serves reads", func() bool {
		pids := s.pluginPIDs()
		return len(pids) > 0 && !slices.Contains(pids, killed[0]) && readOnce(s.client, "us-south").err == nil
	})
	recovered := time.Now()
	s.readOften("us-south")
	readings := stop()
	for _, r := range failed(readings) {
		if r.began.After(recovered) {
			s.Errorf("a read failed %s after the recovery: %v", r.began.Sub(recovered), r.err)
		}
	}
	s.Logf("%s: served again %s after the kill; %d of %d reads failed meanwhile", filepath.Base(s.plugin), recovered.Sub(began).Round(time.Millisecond), len(failed(readings)), len(readings))
	return len(failed(readings))
}

// pluginPIDs are the server's children that run the plugin.
func (s *stack) pluginPIDs() (pids []int) {
	s.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	s.check(err)
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // The process has ended meanwhile.
		}
		// The name, in parentheses, may hold anything; state and parent follow it.
		after := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
		var state string
		var parent int
		if _, err := fmt.Sscan(after, &state, &parent); err != nil || parent != s.vault.Process.Pid || state == "Z" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		s.check(err)
		program, err := os.Readlink(filepath.Join(filepath.Dir(file), "exe"))
		if err == nil && filepath.Base(program) == pluginName {
			pids = append(pids, pid)
		}
	}
	return pids
}
