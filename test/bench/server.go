// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// The programs of the plugins.
const (
	engineProgram   = "engine"
	profiledProgram = "profiled" // the engine, and what process reads
	floorProgram    = "floor"
)

// pluginVersion is built into the plugins; Vault wants it to be the one that they are registered with.
const pluginVersion = "v0.0.1-bench"

// buildPlugins builds the plugins into dir, with the flags of scripts/build.sh.
func buildPlugins(ctx context.Context, dir string) {
	for _, p := range [][]string{
		{engineProgram, ".", "./cmd/vault-plugin-secrets-apic", ""},
		{profiledProgram, ".", "./cmd/vault-plugin-secrets-apic", "profile"},
		{floorProgram, "test/bench", "./floor", ""},
	} {
		build := exec.CommandContext(ctx, "go", "build", "-C", p[1], "-trimpath", "-buildvcs=false", "-tags", p[3],
			"-ldflags", "-s -w -X main.version="+pluginVersion, "-o", filepath.Join(dir, p[0]), p[2])
		build.Env, build.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
		check(build.Run())
	}
}

// server is a Vault server of this program's own, on loopback.
type server struct {
	*api.Client
	http     *http.Client // of loads
	programs string       // the directory of the plugins' programs
	dir      string
	command  *exec.Cmd
	ended    chan struct{}
}

// startServer starts an unsealed server, in a directory of its own. It must be stopped.
func (b *bench) startServer(ctx context.Context, storage string) *server {
	s := &server{programs: b.dir, dir: filepath.Join(b.dir, storage), ended: make(chan struct{}), http: &http.Client{
		Timeout: 2 * time.Minute,
		Transport: &http.Transport{
			MaxIdleConns: 2 * maxConcurrency, MaxIdleConnsPerHost: 2 * maxConcurrency, DisableCompression: true,
		},
	}}
	// Vault can listen on port 0, but does not say which port that gave it.
	listener, cluster := freeAddress(), freeAddress()
	settings := ""
	if storage == "raft" {
		settings = `"path": "raft", "node_id": "one", "performance_multiplier": "1"`
	}
	config := fmt.Sprintf(`{"storage": {%q: {%s}}, "listener": {"tcp": {"address": %q, "cluster_address": %q, "tls_disable": true}},
"api_addr": "http://%s", "cluster_addr": "http://%s", "plugin_directory": %q, "log_level": "warn", "disable_mlock": true}`,
		storage, settings, listener, cluster, listener, cluster, filepath.Join(s.dir, "plugins"))
	check(os.MkdirAll(filepath.Join(s.dir, "raft"), 0o700))
	check(os.MkdirAll(filepath.Join(s.dir, "plugins"), 0o700))
	check(os.WriteFile(filepath.Join(s.dir, "vault.json"), []byte(config), 0o600))
	log := must(os.Create(filepath.Join(s.dir, "vault.log")))
	defer log.Close()
	s.command = exec.Command(os.Getenv("VAULT_SERVER"), "server", "-config", "vault.json")
	s.command.Dir, s.command.Stdout, s.command.Stderr = s.dir, log, log
	s.command.Env = append(ownEnvironment(), "HOME="+s.dir)
	// A group of its own, so that a plugin that outlives its server is ended too.
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(s.command.Start())
	go func() {
		defer close(s.ended)
		_ = s.command.Wait()
	}()
	if err := attempt(func() { s.initialize(ctx, "http://"+listener) }); err != nil {
		s.stop()
		check(fmt.Errorf("vault with %s storage: %w", storage, err))
	}
	return s
}

// stop ends the server and its plugins.
func (s *server) stop() {
	_ = s.command.Process.Signal(os.Interrupt)
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL)
	<-s.ended
}

func (s *server) initialize(ctx context.Context, address string) {
	settings := api.DefaultConfig()
	settings.Address, settings.MaxRetries, settings.Timeout = address, 0, s.http.Timeout
	s.Client = must(api.NewClient(settings))
	s.await(ctx, func() bool { _, err := s.Sys().InitStatusWithContext(ctx); return err == nil })
	made := must(s.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1}))
	s.SetToken(made.RootToken)
	must(s.Sys().UnsealWithContext(ctx, made.Keys[0]))
	s.await(ctx, func() bool {
		health, err := s.Sys().HealthWithContext(ctx)
		return err == nil && !health.Sealed && !health.Standby
	})
}

// await polls a condition for half a minute, or until the server is gone.
func (s *server) await(ctx context.Context, holds func() bool) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !holds() {
		check(pause(ctx, 20*time.Millisecond))
		select {
		case <-s.ended:
			check(errors.New("it ended by itself"))
		default:
		}
	}
}

// mount mounts a program at path, as a plugin and with a process of its own.
func (s *server) mount(ctx context.Context, program, path string) {
	command := filepath.Join(s.dir, "plugins", path)
	check(os.Link(filepath.Join(s.programs, program), command))
	digest := sha256.Sum256(must(os.ReadFile(command)))
	check(s.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: path, Type: api.PluginTypeSecrets, SHA256: hex.EncodeToString(digest[:]), Command: path, Version: pluginVersion,
		// Only a plugin that is built for it takes notice.
		Env: []string{"APIC_PROFILE_DIR=" + s.dir},
	}))
	check(s.Sys().MountWithContext(ctx, path, &api.MountInput{Type: path}))
}

// reload restarts the process of a mount.
func (s *server) reload(ctx context.Context, mount string) {
	must(s.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Plugin: mount}))
}

func (s *server) write(ctx context.Context, path string, data map[string]any) {
	must(s.Logical().WriteWithContext(ctx, path, data))
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

// ownEnvironment is without what is set for another Vault server.
func ownEnvironment() (kept []string) {
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "VAULT_") {
			kept = append(kept, entry)
		}
	}
	return kept
}
