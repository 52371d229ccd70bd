// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU time in /proc, USER_HZ, which is 100 on every
// architecture that Go runs on.
const clockTick = 10 * time.Millisecond

type processStat struct {
	parent int
	cpu    time.Duration
}

func readStat(pid int) (processStat, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processStat{}, err
	}
	// The program's name, in parentheses, may hold anything.
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	if len(fields) < 13 {
		return processStat{}, fmt.Errorf("process %d: unknown format of stat", pid)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return processStat{}, err
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return processStat{}, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return processStat{parent: parent, cpu: time.Duration(user+system) * clockTick}, err
}

// childrenRunning are the pids of parent's children that run a program with this
// file name.
func childrenRunning(parent int, program string) ([]int, error) {
	directories, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, directory := range directories {
		pid, err := strconv.Atoi(filepath.Base(directory))
		if err != nil {
			continue
		}
		// Processes come and go meanwhile.
		if stat, err := readStat(pid); err != nil || stat.parent != parent {
			continue
		}
		if executable, err := os.Readlink(directory + "/exe"); err == nil && filepath.Base(executable) == program {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// residentBytes is a process's RSS.
func residentBytes(pid int) (int64, error) {
	value, err := kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	return value << 10, err
}

// openFiles is the number of a process's file descriptors.
func openFiles(pid int) (int64, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return int64(len(entries)), err
}

// threads is the number of a process's threads.
func threads(pid int) (int64, error) {
	value, err := labelled(fmt.Sprintf("/proc/%d/status", pid), "Threads")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(value, 10, 64)
}

func kilobytes(path, name string) (int64, error) {
	value, err := labelled(path, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
}

// labelled is the first value of a "name: value" line.
func labelled(path, name string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if label, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(label) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", path, name)
}
