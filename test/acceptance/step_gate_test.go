// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// step is one thing that a rotation does, to storage or at IBM.
type step string

// The steps of a rotation of a login config, in their order.
const (
	logIn        step = "log in to IAM"
	readDetails  step = "read the key's details"
	announceName step = "announce the new key's name"
	createKey    step = "create the new key"
	announceID   step = "announce the new key's id"
	withdrawName step = "withdraw the announcement of the name"
	buyToken     step = "buy a token with the new key"
	storeKey     step = "store the new key"
	deleteOldKey step = "delete the old key"
	withdrawID   step = "withdraw the announcement of the id"
)

func rotationSteps() []step {
	return []step{logIn, readDetails, announceName, createKey, announceID, withdrawName, buyToken, storeKey, deleteOldKey, withdrawID}
}

// harm is what happens to a rotation at a step.
type harm struct {
	step step
	// after says that the step has its effect first.
	after bool
	// kill ends the plugin's process; else the step fails.
	kill bool
}

// stepGate stands between the plugin and all that it acts on. It does one harm.
type stepGate struct {
	s   *stack
	sim http.Handler

	mu     sync.Mutex
	harm   *harm
	struck bool
	// announced tells the write-ahead entries apart, and entries are what they held.
	announced map[string]step
	entries   []string
	// keys are the API keys that came by.
	keys map[string]bool
}

// newSteppedStack is a server on raft whose plugin, storage and IBM go through a
// gate.
func newSteppedStack(t *testing.T) (*stack, *stepGate) {
	t.Helper()
	s := newUnmountedStack(t, onRaft, steppedPluginBinary)
	gate := &stepGate{s: s, sim: s.sim, announced: make(map[string]step), keys: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("/_storage", gate.aroundStorage)
	mux.HandleFunc("/", gate.aroundIBM)
	var err error
	s.service, err = apicsim.StartOn(mux, "127.0.0.1:0")
	s.check(err)
	t.Cleanup(s.service.Close)
	s.pluginEnv = []string{"STEP_HOOK=" + s.service.URL() + "/_storage"}
	s.mount()
	return s, gate
}

// arm has a harm done the next time its step is reached.
func (g *stepGate) arm(h *harm) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.harm, g.struck = h, false
}

// disarm says whether the harm was done.
func (g *stepGate) disarm() (struck bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.harm = nil
	return g.struck
}

// strikes says whether the harm is to be done now, and does it if it is a kill.
func (g *stepGate) strikes(at step, after bool) bool {
	g.mu.Lock()
	h := g.harm
	if g.struck || h == nil || h.step != at || h.after != after {
		g.mu.Unlock()
		return false
	}
	g.struck = true
	g.mu.Unlock()
	if h.kill {
		for _, pid := range g.s.pluginPIDs() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return true
}

func (g *stepGate) aroundStorage(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	shown, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	at := g.storageStep(query.Get("call"), query.Get("key"), string(shown))
	if g.strikes(at, query.Get("when") == "after") {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// storageStep names a write. An announcement is told from the one that follows it
// by whether it has the key's id.
func (g *stepGate) storageStep(call, key, entry string) step {
	if strings.HasPrefix(key, "config/") && call == "put" {
		return storeKey
	}
	if !strings.HasPrefix(key, "wal/") {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if call == "put" {
		g.entries = append(g.entries, entry)
		g.announced[key] = announceName
		var wal struct {
			Data struct {
				KeyID string `json:"key_id"`
			} `json:"data"`
		}
		if json.Unmarshal([]byte(entry), &wal) == nil && wal.Data.KeyID != "" {
			g.announced[key] = announceID
		}
		return g.announced[key]
	}
	if g.announced[key] == announceID {
		return withdrawID
	}
	return withdrawName
}

func (g *stepGate) aroundIBM(w http.ResponseWriter, r *http.Request) {
	g.note(r.URL.Query().Get("apikey"))
	at := ibmStep(r)
	if g.strikes(at, false) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	// Held back, so that it can get lost after its effect.
	answer := httptest.NewRecorder()
	g.sim.ServeHTTP(answer, r)
	if g.strikes(at, true) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (g *stepGate) note(key string) {
	if key == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keys[key] = true
}

func ibmStep(r *http.Request) step {
	switch r.Method + " " + r.URL.Path {
	case "POST /identity/token":
		return logIn
	case "GET /v1/apikeys/details":
		return readDetails
	case "POST /v1/apikeys":
		return createKey
	case "POST /apikey":
		return buyToken
	}
	if r.Method == http.MethodDelete {
		return deleteOldKey
	}
	return ""
}

// in is the stack for a subtest.
func (s *stack) in(t *testing.T) *stack {
	inner := *s
	inner.T = t
	return &inner
}

// rotate asks for a rotation and returns the id of the new key.
func (s *stack) rotate(name string) (keyID string, err error) {
	secret, err := s.client.Logical().Write("apic/config/"+name+"/rotate", nil)
	if err != nil {
		return "", err
	}
	return secret.Data["api_key_id"].(string), nil
}

// configKeyID is what a config says of its key.
func configKeyID(config *api.Secret) string {
	id, _ := config.Data["api_key_id"].(string)
	return id
}
