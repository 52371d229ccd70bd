// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// step is one thing that a rotation does, to storage or at IBM.
type step string

// The steps of a rotation of a login config without a grace period, in their order.
const (
	logIn          step = "log in to IAM"
	readDetails    step = "read the key's details"
	listKeys       step = "list the keys of the config's name"
	storeIntent    step = "store the intent"
	createKey      step = "create the new key"
	storeCandidate step = "store the candidate"
	tryCandidate   step = "get a token with the candidate"
	adoptCandidate step = "store the candidate in use"
	readOldKey     step = "read the old key by its id"
	storeDecision  step = "store the decision to delete"
	deleteOldKey   step = "delete the old key"
	storeDeletion  step = "store that it is gone"
)

// rotationSteps are the steps until the new key is in use, cleanupSteps those that
// delete the old one.
func rotationSteps() []step {
	return []step{logIn, readDetails, listKeys, storeIntent, createKey, storeCandidate, tryCandidate, adoptCandidate}
}

func cleanupSteps() []step { return []step{readOldKey, storeDecision, deleteOldKey, storeDeletion} }

// stepFault is what happens to a rotation at a step.
type stepFault struct {
	step step
	// after says that the step takes effect first.
	after bool
	// kill ends the plugin's process; else the step fails, each time that it is tried.
	kill bool
}

func (f stepFault) String() string {
	when, what := "before", "fails"
	if f.after {
		when = "after"
	}
	if f.kill {
		what = "killed"
	}
	return fmt.Sprintf("%s %s, %s", when, f.step, what)
}

// stepGate stands between the plugin and all that it acts on.
type stepGate struct {
	s   *stack
	sim http.Handler

	mu sync.Mutex
	// armed are the faults under way, by the name of the config.
	armed map[string]*armedFault
	// rotated are the configs whose rotation was asked for.
	rotated map[string]bool
	// keys are the API keys that came by.
	keys map[string]bool
}

// armedFault is a fault that is to be injected.
type armedFault struct {
	stepFault
	// reached is closed when the rotation has come to the step, killed when the process
	// is dead.
	reached, killed chan struct{}
	reach           func()
}

// newSteppedStack is a server on raft whose plugin, storage and IBM go through a
// gate.
func newSteppedStack(t *testing.T) (*stack, *stepGate) {
	t.Helper()
	s := newUnmountedStack(t, withRawStorage, steppedPluginBinary)
	gate := &stepGate{s: s, sim: s.sim, armed: make(map[string]*armedFault), rotated: make(map[string]bool), keys: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("/_plugin", gate.aroundPlugin)
	mux.HandleFunc("/", gate.aroundIBM)
	var err error
	s.service, err = apicsim.StartOn(mux, "127.0.0.1:0")
	s.check(err)
	t.Cleanup(s.service.Close)
	s.pluginEnv = []string{"STEP_HOOK=" + s.service.URL() + "/_plugin"}
	s.mount()
	return s, gate
}

// arm has a fault injected into the rotation of a config.
func (g *stepGate) arm(config string, f stepFault) *armedFault {
	reached := make(chan struct{})
	armed := &armedFault{stepFault: f, reached: reached, killed: make(chan struct{}), reach: sync.OnceFunc(func() { close(reached) })}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed[config] = armed
	return armed
}

func (g *stepGate) disarm(config string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.armed, config)
}

// passes says whether a step of a config's rotation may go on. Where the process is to
// be killed, it waits until it is.
func (g *stepGate) passes(config string, at step, after bool) bool {
	g.mu.Lock()
	f := g.armed[config]
	g.mu.Unlock()
	if f == nil || f.step != at || f.after != after {
		return true
	}
	f.reach()
	if f.kill {
		select {
		case <-f.killed:
		case <-g.s.Context().Done():
		}
	}
	return false
}

// aroundPlugin is what the plugin asks before and after its writes to storage, and
// before a rotation, which is asked for once.
func (g *stepGate) aroundPlugin(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	entry, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	name, ofConfig := strings.CutPrefix(query.Get("key"), "config/")
	passes := true
	switch {
	case query.Get("call") == "rotate":
		passes = g.isFirst(name)
	case query.Get("call") == "put" && ofConfig:
		passes = g.passes(name, storageStep(entry), query.Get("when") == "after")
	}
	if !passes {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func (g *stepGate) isFirst(path string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.rotated[path]
	g.rotated[path] = true
	return !asked
}

// storageStep names the write of a config by the record in it.
func storageStep(entry []byte) step {
	var stored struct {
		Keys rotation.Record `json:"keys"`
	}
	if err := json.Unmarshal(entry, &stored); err != nil || stored.Keys.Current == nil {
		return ""
	}
	keys := stored.Keys
	switch {
	case keys.Intent != nil:
		return storeIntent
	case keys.Candidate != nil:
		return storeCandidate
	case !keys.Current.Managed:
		return ""
	case slices.ContainsFunc(keys.Retired, func(k rotation.Retired) bool { return k.Condemned }):
		return storeDecision
	case len(keys.Retired) > 0:
		return adoptCandidate
	default:
		return storeDeletion
	}
}

func (g *stepGate) aroundIBM(w http.ResponseWriter, r *http.Request) {
	at := ibmStep(r)
	config := g.configOfCall(r, at)
	if !g.passes(config, at, false) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	// Held back, so that it can get lost after its effect.
	response := httptest.NewRecorder()
	g.sim.ServeHTTP(response, r)
	if at == createKey {
		g.noteCreated(response.Body.Bytes())
	}
	if !g.passes(config, at, true) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	maps.Copy(w.Header(), response.Header())
	w.WriteHeader(response.Code)
	_, _ = w.Write(response.Body.Bytes())
}

// ibmStep names a call. What gets a token may be a read, with the key in use.
func ibmStep(r *http.Request) step {
	switch r.Method + " " + r.URL.Path {
	case "POST /identity/token":
		return logIn
	case "POST /apikey":
		return tryCandidate
	case "GET /v1/apikeys/details":
		return readDetails
	case "GET /v1/apikeys":
		return listKeys
	case "POST /v1/apikeys":
		return createKey
	}
	switch r.Method {
	case http.MethodGet:
		return readOldKey
	case http.MethodDelete:
		return deleteOldKey
	default:
		return ""
	}
}

// configOfCall is the config to whose rotation a call belongs, or empty.
func (g *stepGate) configOfCall(r *http.Request, at step) string {
	switch at {
	case logIn:
		config, _ := g.ownerOf(r.PostFormValue("apikey"))
		return config
	case tryCandidate:
		if config, created := g.ownerOf(r.URL.Query().Get("apikey")); created {
			return config
		}
		return ""
	default:
		return configOf(bearerIdentity(r))
	}
}

// ownerOf is the config whose identity a key belongs to, and says whether a rotation
// created the key.
func (g *stepGate) ownerOf(key string) (config string, created bool) {
	g.mu.Lock()
	g.keys[key] = true
	g.mu.Unlock()
	id := g.s.sim.KeyID(key)
	for _, k := range g.s.sim.Keys() {
		if k.KeyID == id {
			return configOf(k.IAMID), k.CreatedByAPI
		}
	}
	return "", false
}

// noteCreated remembers a key that may never come by again.
func (g *stepGate) noteCreated(response []byte) {
	var created struct {
		Value string `json:"apikey"`
	}
	if err := json.Unmarshal(response, &created); err == nil && created.Value != "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.keys[created.Value] = true
	}
}

// identityPrefix and a config's name are the identity that has the config's keys.
const identityPrefix = "IBMid-"

func configOf(identity string) string {
	config, _ := strings.CutPrefix(identity, identityPrefix)
	return config
}

// bearerIdentity is whose token a request carries.
func bearerIdentity(r *http.Request) string {
	parts := strings.Split(r.Header.Get("Authorization"), ".")
	if len(parts) != 3 {
		return ""
	}
	var claims struct {
		IAMID string `json:"iam_id"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.IAMID
}
