// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// pluginVersion is built into the plugin and registered with it; Vault refuses
// the plugin if they differ.
const pluginVersion = "v0.0.1-acceptance"

// stack is a Vault server with the plugin mounted at apic/, and a simulated API
// Connect that takes one key.
type stack struct {
	*testing.T
	dir     string
	storage string
	// plugin is the binary that is mounted.
	plugin string
	// pluginEnv is what it gets in its environment.
	pluginEnv []string
	client    *api.Client
	vault     *exec.Cmd
	// kill ends the server and its plugins at once.
	kill func()
	// port and clusterPort are where the server listens.
	port, clusterPort int

	sim     *apicsim.Sim
	service *apicsim.Server
	key     string
	// clientID and clientSecret are what the platform service wants beside the key.
	clientID     string
	clientSecret string
	// moreKeys counts those that anotherKey made.
	moreKeys int
}

// newStack starts a server that keeps its storage in memory.
func newStack(t *testing.T) *stack {
	t.Helper()
	return newStackOn(t, inMemory, pluginBinary)
}

// newBareStack starts a server whose apic/ is the plugin that answers a constant.
func newBareStack(t *testing.T) *stack {
	t.Helper()
	return newStackOn(t, inMemory, barePluginBinary)
}

const inMemory = `storage "inmem" {}`

// newRaftStack starts a server whose storage lies in the directory raft.
func newRaftStack(t *testing.T) *stack {
	t.Helper()
	return newStackOn(t, onRaft, pluginBinary)
}

const onRaft = `
storage "raft" {
  path                   = "raft"
  node_id                = "one"
  performance_multiplier = 1
}`

func newStackOn(t *testing.T, storage, plugin string) *stack {
	t.Helper()
	s := newUnmountedStack(t, storage, plugin)
	s.mount()
	return s
}

// newUnmountedStack starts a server that has the plugin in its directory and does
// not know it yet.
func newUnmountedStack(t *testing.T, storage, plugin string) *stack {
	t.Helper()
	s := newServerlessStack(t, storage, plugin)
	s.startUninitialized()
	s.initialize()
	return s
}

// newServerlessStack has the simulation running and no server yet.
func newServerlessStack(t *testing.T, storage, plugin string) *stack {
	t.Helper()
	key, clientID, clientSecret := "canary-"+rand.Text(), "client-"+rand.Text(), "canary-"+rand.Text()
	sim, err := apicsim.New(apicsim.Options{Keys: []string{key}, ClientID: clientID, ClientSecret: clientSecret})
	if err != nil {
		t.Fatal(err)
	}
	service, err := apicsim.Start(sim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)
	return &stack{
		T: t, dir: newDir(t), storage: storage, plugin: plugin, sim: sim, service: service,
		key: key, clientID: clientID, clientSecret: clientSecret,
	}
}

// newDir is a directory without links in its path: Vault compares a plugin's path
// with its directory's after following them.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *stack) path(name string) string { return filepath.Join(s.dir, name) }

// startUninitialized tries ports until one is free: Vault can listen on port 0, but
// does not say which port that gave it.
func (s *stack) startUninitialized() {
	s.Helper()
	for _, dir := range []string{"plugins", "raft", "home"} {
		s.check(os.MkdirAll(s.path(dir), 0o700))
	}
	binary, err := os.ReadFile(s.plugin)
	s.check(err)
	s.check(os.WriteFile(s.path("plugins/"+pluginName), binary, 0o755))
	for range 10 {
		s.port, s.clusterPort = freePort(s.T), freePort(s.T)
		if s.tryStart() {
			return
		}
	}
	s.Fatal("vault did not start")
}

func (s *stack) tryStart() bool {
	s.Helper()
	s.check(os.WriteFile(s.path("vault.hcl"), fmt.Appendf(nil, `%s
listener "tcp" {
  address         = "127.0.0.1:%d"
  cluster_address = "127.0.0.1:%d"
  tls_disable     = true
}
api_addr         = "http://127.0.0.1:%d"
cluster_addr     = "http://127.0.0.1:%d"
plugin_directory = %q
log_level        = "trace"
disable_mlock    = true
`, s.storage, s.port, s.clusterPort, s.port, s.clusterPort, s.path("plugins")), 0o600))
	log, err := os.OpenFile(s.path("vault.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	s.check(err)
	defer log.Close()
	vault := exec.Command(vaultBinary, "server", "-config", s.path("vault.hcl"))
	vault.Dir = s.dir
	vault.Stdout, vault.Stderr = log, log
	vault.Env = s.environment()
	// A group of its own, so that a plugin that outlives its server is ended too.
	vault.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.check(vault.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = vault.Wait()
	}()
	// Once only, for after that the group's number may be another's.
	kill := sync.OnceFunc(func() {
		_ = syscall.Kill(-vault.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	s.Cleanup(func() {
		_ = vault.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
		}
		kill()
	})
	config := api.DefaultConfig()
	config.Address = fmt.Sprintf("http://127.0.0.1:%d", s.port)
	config.MaxRetries = 0
	s.client, err = api.NewClient(config)
	s.check(err)
	s.client.ClearToken()
	s.vault, s.kill = vault, kill
	return until(30*time.Second, ended, func() bool {
		_, err := s.client.Sys().InitStatus()
		return err == nil
	})
}

// until polls a condition, and gives up when gone is closed.
func until(timeout time.Duration, gone <-chan struct{}, holds func() bool) bool {
	deadline := time.After(timeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-gone:
			return false
		case <-deadline:
			return false
		}
	}
	return true
}

func (s *stack) eventually(what string, holds func() bool) {
	s.Helper()
	if !until(30*time.Second, nil, holds) {
		s.Fatalf("waited in vain until %s", what)
	}
}

// initialize makes this server the first of its storage and unseals it.
func (s *stack) initialize() (unsealKey string) {
	s.Helper()
	made, err := s.client.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	s.check(err)
	s.client.SetToken(made.RootToken)
	_, err = s.client.Sys().Unseal(made.Keys[0])
	s.check(err)
	s.eventually("vault is active", func() bool {
		health, err := s.client.Sys().Health()
		return err == nil && health.Initialized && !health.Sealed && !health.Standby
	})
	return made.Keys[0]
}

func (s *stack) mount() {
	s.Helper()
	version := pluginVersion
	if s.plugin != pluginBinary {
		version = "" // It reports one of its own.
	}
	s.check(s.client.Sys().RegisterPlugin(&api.RegisterPluginInput{
		Name: pluginName, Type: api.PluginTypeSecrets, Command: pluginName,
		Version: version, SHA256: s.sha256(s.plugin), Env: s.pluginEnv,
	}))
	s.check(s.client.Sys().Mount("apic", &api.MountInput{Type: pluginName}))
}

// sha256 is the digest of a file as Vault's catalogue has it.
func (s *stack) sha256(file string) string {
	s.Helper()
	content, err := os.ReadFile(file)
	s.check(err)
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// environment is the tests' own without anything that would point Vault elsewhere.
func (s *stack) environment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "VAULT_") && !strings.HasPrefix(entry, "HOME=") {
			kept = append(kept, entry)
		}
	}
	return append(kept, "HOME="+s.path("home"))
}

func (s *stack) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}
