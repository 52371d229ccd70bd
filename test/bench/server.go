// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/procfs"
	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// The programs of the plugins.
const (
	engineProgram   = "engine"
	profiledProgram = "profiled" // the engine, and what process reads
	floorProgram    = "floor"
)

// buildPlugins builds the plugins into dir, with the flags of scripts/build.sh.
func buildPlugins(ctx context.Context, dir string) {
	for _, p := range [][]string{
		{engineProgram, ".", "./cmd/vault-plugin-secrets-apic", ""},
		{profiledProgram, ".", "./cmd/vault-plugin-secrets-apic", "profile"},
		{floorProgram, "test/bench", "./floor", ""},
	} {
		build := exec.CommandContext(ctx, "go", "build", "-C", p[1], "-trimpath", "-buildvcs=false", "-tags", p[3],
			"-ldflags", "-s -w", "-o", filepath.Join(dir, p[0]), p[2])
		build.Env, build.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
		check(build.Run())
	}
}

// server is a Vault server of this program's own, on loopback.
type server struct {
	*api.Client
	http    *http.Client // of loads
	dir     string       // of its storage and of its plugins; below that of their programs
	command *exec.Cmd
}

// startServer starts an unsealed server, in a directory of its own. It ends with ctx.
func (b *bench) startServer(ctx context.Context, storage string) *server {
	s := &server{dir: filepath.Join(b.dir, storage), http: &http.Client{
		Timeout:   2 * time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: maxConcurrency, DisableCompression: true},
	}}
	check(os.Mkdir(s.dir, 0o700))
	// Vault can listen on port 0, but does not say which port that gave it. Storage in memory has
	// no use for the settings of raft.
	listener, cluster := freeAddress(), freeAddress()
	config := fmt.Sprintf(`{"storage": {%q: {"path": ".", "node_id": "one", "performance_multiplier": "1"}},
"listener": {"tcp": {"address": %q, "cluster_address": %q, "tls_disable": true}}, "api_addr": "http://%s", "cluster_addr": "http://%s",
"plugin_directory": %q, "log_level": "error", "disable_mlock": true}`,
		storage, listener, cluster, listener, cluster, s.dir)
	check(os.WriteFile(filepath.Join(s.dir, "vault.json"), []byte(config), 0o600))
	s.command = exec.CommandContext(ctx, os.Getenv("VAULT_SERVER"), "server", "-config", "vault.json")
	s.command.Dir = s.dir
	// Nothing that is set for another Vault server.
	s.command.Env = []string{"HOME=" + s.dir}
	// A group of its own, so that a plugin that outlives its server is ended too.
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.command.Cancel = func() error { return s.command.Process.Signal(os.Interrupt) }
	s.command.WaitDelay = 10 * time.Second
	check(s.command.Start())
	b.servers.Go(func() {
		_ = s.command.Wait()
		_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL)
	})
	s.initialize(ctx, "http://"+listener)
	return s
}

// initialize unseals the server. Its client tries again, for 25 seconds in all, while the server
// does not listen yet or is not active.
func (s *server) initialize(ctx context.Context, address string) {
	settings := api.DefaultConfig()
	settings.Address, settings.Timeout = address, s.http.Timeout
	settings.MaxRetries, settings.MinRetryWait, settings.MaxRetryWait = 50, 20*time.Millisecond, 20*time.Millisecond
	s.Client = must(api.NewClient(settings))
	made := must(s.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1}))
	s.SetToken(made.RootToken)
	must(s.Sys().UnsealWithContext(ctx, made.Keys[0]))
}

// mount mounts a program at path, as a plugin and with a process of its own.
func (s *server) mount(ctx context.Context, program, path string) {
	command := filepath.Join(s.dir, path)
	check(os.Link(filepath.Join(s.dir, "..", program), command))
	digest := sha256.Sum256(must(os.ReadFile(command)))
	check(s.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: path, Type: api.PluginTypeSecrets, SHA256: hex.EncodeToString(digest[:]), Command: path,
		// Only a plugin that is built for it takes notice.
		Env: []string{"APIC_PROFILE_DIR=" + s.dir},
	}))
	check(s.Sys().MountWithContext(ctx, path, &api.MountInput{Type: path}))
}

func (s *server) write(ctx context.Context, path string, data map[string]any) {
	must(s.Logical().WriteWithContext(ctx, path, data))
}

// raw reads what Vault does not wrap in JSON.
func (s *server) raw(ctx context.Context, path string, query map[string][]string) []byte {
	response := must(s.Logical().ReadRawWithDataWithContext(ctx, path, query))
	defer response.Body.Close()
	return must(io.ReadAll(response.Body))
}

// target is a request of Vault's API.
func (s *server) target(method, path string, body map[string]any) vegeta.Target {
	t := vegeta.Target{Method: method, URL: s.Address() + "/v1/" + path, Header: http.Header{"X-Vault-Token": {s.Token()}}}
	if body != nil {
		t.Body, _ = json.Marshal(body) // Texts and numbers.
	}
	return t
}

// read is a load that reads what path names, which may be another each time.
func (s *server) read(ctx context.Context, l load, path func() string) sample {
	l.next = func() vegeta.Target { return s.target(http.MethodGet, path(), nil) }
	return l.run(ctx, s.http)
}

// settings are those of a config for the simulated service, and more. Its key is not tried.
func (b *bench) settings(more map[string]any) map[string]any {
	config := map[string]any{
		"api_key": b.key, "token_url": b.service.URL() + "/apikey", "api_url": b.service.URL(), "max_retries": 0, "verify": false,
	}
	maps.Copy(config, more)
	return config
}

func freeAddress() string {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	defer listener.Close()
	return listener.Addr().String()
}

// process is one of a server's. If it was built with the tag profile, it tells of itself on a
// Unix socket.
type process struct {
	procfs.Proc
	http *http.Client
}

// plugin is the one process of a mount.
func (s *server) plugin(mount string) *process {
	found := slices.DeleteFunc(must(procfs.AllProcs()), func(p procfs.Proc) bool {
		executable, _ := p.Executable() // Processes come and go meanwhile, and others' are not told of.
		return executable != filepath.Join(s.dir, mount)
	})
	if len(found) != 1 {
		check(fmt.Errorf("%s runs in %d processes instead of one", mount, len(found)))
	}
	socket := filepath.Join(s.dir, fmt.Sprintf("%d.sock", found[0].PID))
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &process{found[0], &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// cpu is the seconds that it took since it began; none if it is not there.
func (p *process) cpu() float64 {
	if p == nil {
		return 0
	}
	return must(p.Stat()).CPUTime()
}

// get reads one of the resources that cmd/vault-plugin-secrets-apic/profile.go has.
func (p *process) get(resource string) []byte {
	response, err := p.http.Get("http://plugin/" + resource)
	check(err)
	defer response.Body.Close()
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
func (p *process) usage(collect bool) (u usage) {
	stat := must(p.Stat())
	u.Resident, u.Threads, u.Files = stat.ResidentMemory(), stat.NumThreads, must(p.FileDescriptorsLen())
	check(json.Unmarshal(p.get(fmt.Sprintf("runtime?collect=%t", collect)), &u))
	return u
}

// hasRoutine says whether a goroutine is in a function.
func (p *process) hasRoutine(function string) bool {
	return strings.Contains(string(p.get("goroutine?debug=1")), function)
}
