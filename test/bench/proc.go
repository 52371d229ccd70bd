// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"path/filepath"
	"time"

	"github.com/prometheus/procfs"
)

// childrenRunning are the pids of parent's children that run a program with this
// file name.
func childrenRunning(parent int, program string) ([]int, error) {
	processes, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, process := range processes {
		// Processes come and go meanwhile.
		if stat, err := process.Stat(); err != nil || stat.PPID != parent {
			continue
		}
		if executable, err := process.Executable(); err == nil && filepath.Base(executable) == program {
			pids = append(pids, process.PID)
		}
	}
	return pids, nil
}

func statOf(pid int) (procfs.ProcStat, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStat{}, err
	}
	return process.Stat()
}

// residentBytes is a process's RSS.
func residentBytes(pid int) (int64, error) {
	stat, err := statOf(pid)
	return int64(stat.ResidentMemory()), err
}

// cpuTimes are what processes took since they began.
func cpuTimes(pids []int) ([]time.Duration, error) {
	times := make([]time.Duration, len(pids))
	for i, pid := range pids {
		stat, err := statOf(pid)
		if err != nil {
			return nil, err
		}
		times[i] = time.Duration(stat.CPUTime() * float64(time.Second))
	}
	return times, nil
}
