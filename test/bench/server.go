// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	enginePlugin = "vault-plugin-secrets-apic"
	floorPlugin  = "floor"

	// pluginVersion is built into both plugins; Vault wants it to be the one that
	// they are registered with.
	pluginVersion = "v0.0.1-bench"
)

// buildPlugins builds the plugins into dir, with the flags of scripts/build.sh and
// a build tag, which may be empty.
func buildPlugins(ctx context.Context, dir, tag string) error {
	for program, source := range map[string]string{enginePlugin: "./cmd/" + enginePlugin, floorPlugin: "./floor"} {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", tag,
			"-ldflags", "-s -w -X main.version="+pluginVersion, "-o", filepath.Join(dir, program), source)
		if program == floorPlugin {
			build.Dir = "test/bench"
		}
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", source, err, output)
		}
	}
	return nil
}

// server is a Vault server of this program's own, on loopback.
type server struct {
	dir, plugins string
	address      string
	token        string
	command      *exec.Cmd
	ended        chan struct{}
	http         *http.Client
}

// startServer starts an unsealed server, in a directory of its own.
func startServer(ctx context.Context, p prepared, storage string) (*server, error) {
	s := &server{dir: filepath.Join(p.dir, storage), plugins: p.plugins, http: &http.Client{
		Timeout: 2 * time.Minute,
		Transport: &http.Transport{
			MaxIdleConns: 2 * maxConcurrency, MaxIdleConnsPerHost: 2 * maxConcurrency, DisableCompression: true,
		},
	}}
	if err := os.MkdirAll(filepath.Join(s.dir, "raft"), 0o700); err != nil {
		return nil, err
	}
	// Vault can listen on port 0, but does not say which port that gave it.
	for range 10 {
		up, err := s.tryStart(ctx, p.vault, storage)
		if err != nil {
			s.stop()
			return nil, err
		}
		if !up {
			s.stop()
			continue
		}
		if err := s.initialize(ctx); err != nil {
			s.stop()
			return nil, err
		}
		return s, nil
	}
	return nil, errors.New("vault did not start")
}

func (s *server) tryStart(ctx context.Context, binary, storage string) (up bool, err error) {
	port, err := freePort()
	if err != nil {
		return false, err
	}
	clusterPort, err := freePort()
	if err != nil {
		return false, err
	}
	block := `storage "inmem" {}`
	if storage == "raft" {
		block = "storage \"raft\" {\n  path = \"raft\"\n  node_id = \"one\"\n  performance_multiplier = 1\n}"
	}
	config := fmt.Sprintf(`%s
listener "tcp" {
  address         = "127.0.0.1:%d"
  cluster_address = "127.0.0.1:%d"
  tls_disable     = true
}
api_addr         = "http://127.0.0.1:%d"
cluster_addr     = "http://127.0.0.1:%d"
plugin_directory = %q
log_level        = "warn"
disable_mlock    = true
`, block, port, clusterPort, port, clusterPort, s.plugins)
	if err := os.WriteFile(filepath.Join(s.dir, "vault.hcl"), []byte(config), 0o600); err != nil {
		return false, err
	}
	log, err := os.Create(filepath.Join(s.dir, "vault.log"))
	if err != nil {
		return false, err
	}
	defer log.Close()
	s.address = fmt.Sprintf("http://127.0.0.1:%d", port)
	s.command = exec.Command(binary, "server", "-config", "vault.hcl")
	s.command.Dir, s.command.Stdout, s.command.Stderr = s.dir, log, log
	s.command.Env = environmentWithout("VAULT_", "HOME=")
	s.command.Env = append(s.command.Env, "HOME="+s.dir)
	// A group of its own, so that a plugin that outlives its server is ended too.
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.command.Start(); err != nil {
		s.command = nil
		return false, err
	}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = s.command.Wait()
	}()
	return s.until(ctx, func() bool { return s.call(ctx, http.MethodGet, "sys/init", nil, nil) == nil })
}

// stop ends the server and its plugins.
func (s *server) stop() {
	if s.command == nil {
		return
	}
	_ = s.command.Process.Signal(os.Interrupt)
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL)
	<-s.ended
	s.command = nil
}

// until polls a condition for half a minute, or until the server is gone.
func (s *server) until(ctx context.Context, holds func() bool) (bool, error) {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, ctx.Err()
		case <-s.ended:
			return false, nil
		case <-deadline:
			return false, nil
		}
	}
	return true, nil
}

func (s *server) initialize(ctx context.Context) error {
	var made struct {
		Keys      []string `json:"keys"`
		RootToken string   `json:"root_token"`
	}
	if err := s.call(ctx, http.MethodPut, "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1}, &made); err != nil {
		return err
	}
	s.token = made.RootToken
	if err := s.call(ctx, http.MethodPut, "sys/unseal", map[string]any{"key": made.Keys[0]}, nil); err != nil {
		return err
	}
	active, err := s.until(ctx, func() bool { return s.call(ctx, http.MethodGet, "sys/health", nil, nil) == nil })
	if err == nil && !active {
		err = errors.New("vault did not become active")
	}
	return err
}

// mountPlugin registers the program of the plugin directory under its file name
// and mounts it at path.
func (s *server) mountPlugin(ctx context.Context, program, path string) error {
	content, err := os.ReadFile(filepath.Join(s.plugins, program))
	if err != nil {
		return err
	}
	digest := sha256.Sum256(content)
	err = s.call(ctx, http.MethodPut, "sys/plugins/catalog/secret/"+program, map[string]any{
		"sha256": hex.EncodeToString(digest[:]), "command": program, "version": pluginVersion,
		// Only a plugin that is built for it takes notice.
		"env": []string{"APIC_PROFILE_DIR=" + s.dir},
	}, nil)
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPost, "sys/mounts/"+path, map[string]any{"type": program}, nil)
}

// reload restarts the process of a plugin that has one mount.
func (s *server) reload(ctx context.Context, program string) error {
	return s.call(ctx, http.MethodPut, "sys/plugins/reload/backend", map[string]any{"plugin": program}, nil)
}

// plugin is the pid of the one process that runs a plugin.
func (s *server) plugin(program string) (int, error) {
	pids, err := childrenRunning(s.command.Process.Pid, program)
	if err != nil {
		return 0, err
	}
	if len(pids) != 1 {
		return 0, fmt.Errorf("%s runs in %d processes instead of one", program, len(pids))
	}
	return pids[0], nil
}

// call makes one request of Vault's API. No error quotes what was sent.
func (s *server) call(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, s.address+"/v1/"+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Token", s.token)
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := s.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		return answeredError(method, path, response)
	}
	if answer != nil {
		return json.NewDecoder(response.Body).Decode(answer)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func answeredError(method, path string, response *http.Response) error {
	var body struct {
		Errors []string `json:"errors"`
	}
	_ = json.NewDecoder(io.LimitReader(response.Body, 4<<10)).Decode(&body)
	return fmt.Errorf("%s %s: %s %s", method, path, response.Status, strings.Join(body.Errors, "; "))
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func environmentWithout(prefixes ...string) []string {
	var kept []string
entries:
	for _, entry := range os.Environ() {
		for _, prefix := range prefixes {
			if strings.HasPrefix(entry, prefix) {
				continue entries
			}
		}
		kept = append(kept, entry)
	}
	return kept
}
