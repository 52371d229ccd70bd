// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestInfo_isThatOfTheRunningBuild(t *testing.T) {
	m := newMount(t)
	m.backend.build = BuildInfo{Version: "v1.2.3", Commit: "0123abc", Date: "2026-01-02T03:04:05Z"}
	data := m.must(logical.ReadOperation, "info", nil).Data
	if data["version"] != "v1.2.3" || data["commit"] != "0123abc" || data["build_date"] != "2026-01-02T03:04:05Z" {
		t.Errorf("the build is %v", data)
	}
	if data["go_version"] != runtime.Version() {
		t.Errorf("go_version is %v", data["go_version"])
	}
	// A test binary does not carry its modules' versions; the acceptance test looks at
	// those of the built plugin.
	if data["sdk_version"] == "" {
		t.Error("sdk_version is empty")
	}
}

// What the build was not given is "unknown", and not empty.
func TestInfo_missingBuildDataIsUnknown(t *testing.T) {
	made, err := FactoryWithBuild(BuildInfo{})(context.Background(), &logical.BackendConfig{})
	if err != nil {
		t.Fatal(err)
	}
	m := newMount(t)
	m.backend.build = made.(*backend).build
	data := m.must(logical.ReadOperation, "info", nil).Data
	for _, field := range []string{"version", "commit", "build_date"} {
		if data[field] != "unknown" {
			t.Errorf("%s is %v", field, data[field])
		}
	}
}

func TestUserAgent_namesTheBuildInEveryRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		var (
			mu     sync.Mutex
			agents = map[string]int{}
		)
		m := newPipedMount(t, sim, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			agents[r.Header.Get("User-Agent")]++
			mu.Unlock()
			sim.ServeHTTP(w, r)
		}))
		m.defaults = map[string]any{"iam_url": m.url}
		m.writeConfig("us-south", nil)
		m.rotate("us-south")
		mu.Lock()
		defer mu.Unlock()
		counts := sim.Counts()
		if want := counts.Exchanges + counts.KeyCalls; len(agents) != 1 || agents["vault-plugin-secrets-apic/"+developmentVersion] != want || counts.KeyCalls == 0 {
			t.Errorf("of %d requests these are the agents: %v", want, agents)
		}
	})
}
