// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// process is one of a server's. If it was built with the tag profile, it tells of itself on a
// Unix socket.
type process struct {
	procfs.Proc
	http *http.Client
}

// plugin is the one process of a mount.
func (s *server) plugin(mount string) process {
	var found []procfs.Proc
	for _, p := range must(procfs.AllProcs()) {
		// Processes come and go meanwhile.
		stat, err := p.Stat()
		executable, gone := p.Executable()
		if err == nil && gone == nil && stat.PPID == s.command.Process.Pid && filepath.Base(executable) == mount {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		check(fmt.Errorf("%s runs in %d processes instead of one", mount, len(found)))
	}
	socket := filepath.Join(s.dir, fmt.Sprintf("%d.sock", found[0].PID))
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return process{found[0], &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// cpu is what it took since it began.
func (p process) cpu() time.Duration {
	return time.Duration(must(p.Stat()).CPUTime() * float64(time.Second))
}

func (p process) resident() int { return must(p.Stat()).ResidentMemory() }

// get reads one of the resources that cmd/vault-plugin-secrets-apic/profile.go has.
func (p process) get(ctx context.Context, resource string) []byte {
	response, err := p.http.Do(must(http.NewRequestWithContext(ctx, http.MethodGet, "http://plugin/"+resource, nil)))
	check(err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		check(fmt.Errorf("the plugin's %s: %s", resource, response.Status))
	}
	return must(io.ReadAll(response.Body))
}

// usage is what a process holds at a time: bytes and numbers.
type usage struct {
	Resident       int
	LiveHeap       int `json:"live_heap"` // as of the last collection
	Goroutines     int
	Threads, Files int
}

// usage is what it holds; the live heap is that after a collection if one is wanted.
func (p process) usage(ctx context.Context, collect bool) (u usage) {
	stat := must(p.Stat())
	u.Resident, u.Threads, u.Files = stat.ResidentMemory(), stat.NumThreads, must(p.FileDescriptorsLen())
	check(json.Unmarshal(p.get(ctx, fmt.Sprintf("runtime?collect=%t", collect)), &u))
	return u
}

// hasRoutine says whether a goroutine is in a function.
func (p process) hasRoutine(ctx context.Context, function string) bool {
	return strings.Contains(string(p.get(ctx, "goroutine?debug=1")), function)
}
