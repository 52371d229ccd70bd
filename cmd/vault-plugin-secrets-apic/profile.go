// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

//go:build profile

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// init has a plugin that was built with the tag profile serve Go's profiles, for the
// benchmark. No release is built with it. It listens on a Unix socket in the directory that
// APIC_PROFILE_DIR names, which has the process's id in its name, because Vault runs the plugin
// more than once to ask it about itself.
func init() {
	dir := os.Getenv("APIC_PROFILE_DIR")
	if dir == "" {
		return
	}
	listener, err := net.Listen("unix", filepath.Join(dir, fmt.Sprintf("%d.sock", os.Getpid())))
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cpu", pprof.Profile)
	mux.HandleFunc("GET /allocs", serveAllocations)
	mux.Handle("GET /goroutine", pprof.Handler("goroutine"))
	mux.HandleFunc("GET /runtime", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("collect") == "true" {
			runtime.GC()
		}
		_ = json.NewEncoder(w).Encode(map[string]uint64{"live_heap": liveHeap(), "goroutines": uint64(runtime.NumGoroutine())})
	})
	go func() { _ = http.Serve(listener, mux) }()
}

// serveAllocations tells what was allocated in so many seconds. Go knows that as of the last
// collection, and the plugin makes few.
func serveAllocations(w http.ResponseWriter, r *http.Request) {
	seconds, _ := strconv.Atoi(r.FormValue("seconds"))
	runtime.GC()
	last := time.AfterFunc(time.Duration(seconds)*time.Second-50*time.Millisecond, runtime.GC)
	defer last.Stop()
	pprof.Handler("allocs").ServeHTTP(w, r)
}
