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

	"github.com/prometheus/procfs"
)

// profileTag builds a plugin that serves what profiled reads.
const profileTag = "profile"

// profiled is a process that was built with profileTag and serves its profiles on a
// Unix socket.
type profiled struct {
	pid  int
	http *http.Client
}

// profiled is the process of a plugin. What it returns must be closed.
func (s *server) profiled(program string) (*profiled, error) {
	pid, err := s.plugin(program)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(s.dir, fmt.Sprintf("%d.sock", pid))
	return &profiled{pid: pid, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}, nil
}

func (p *profiled) close() { p.http.CloseIdleConnections() }

// get reads one of the resources that cmd/vault-plugin-secrets-apic/profile.go has.
func (p *profiled) get(ctx context.Context, resource string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://plugin/"+resource, nil)
	if err != nil {
		return nil, err
	}
	response, err := p.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the plugin's %s: %s", resource, response.Status)
	}
	return io.ReadAll(response.Body)
}

// usage is what a process holds at a time.
type usage struct {
	resident, liveHeap             int64 // bytes; the heap as of the last collection
	goroutines, threads, openFiles int64
}

func (p *profiled) usage(ctx context.Context) (usage, error) {
	content, err := p.get(ctx, "runtime")
	if err != nil {
		return usage{}, err
	}
	var told struct {
		LiveHeap   int64 `json:"live_heap"`
		Goroutines int64 `json:"goroutines"`
	}
	if err := json.Unmarshal(content, &told); err != nil {
		return usage{}, err
	}
	u := usage{liveHeap: told.LiveHeap, goroutines: told.Goroutines}
	process, err := procfs.NewProc(p.pid)
	if err != nil {
		return usage{}, err
	}
	stat, err := process.Stat()
	if err != nil {
		return usage{}, err
	}
	u.resident, u.threads = int64(stat.ResidentMemory()), int64(stat.NumThreads)
	files, err := process.FileDescriptorsLen()
	u.openFiles = int64(files)
	return u, err
}
