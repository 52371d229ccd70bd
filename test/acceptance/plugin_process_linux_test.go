// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAKilledPluginIsStartedAgainAndReadersAreServed(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	stop := s.crowd(8, 2*time.Millisecond, "us-south")
	s.readOften("us-south")
	killed := s.pluginPIDs()
	if len(killed) == 0 {
		t.Fatal("the server has no plugin process")
	}
	for _, pid := range killed {
		s.check(syscall.Kill(pid, syscall.SIGKILL))
	}
	began := time.Now()
	s.eventually("another process serves reads", func() bool {
		return readOnce(s.client, "us-south").err == nil && s.sim.Counts().Issued > 1
	})
	recovered := time.Now()
	for _, pid := range s.pluginPIDs() {
		for _, old := range killed {
			if pid == old {
				t.Errorf("process %d was killed and is still there", pid)
			}
		}
	}
	s.readOften("us-south")
	readings := stop()
	for _, r := range failed(readings) {
		if r.began.After(recovered) {
			t.Errorf("a read failed %s after the recovery: %v", r.began.Sub(recovered), r.err)
		}
	}
	t.Logf("reads were served again %s after the kill; %d of %d failed meanwhile", recovered.Sub(began).Round(time.Millisecond), len(failed(readings)), len(readings))
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
