// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// limiter answers 429 to what its path begins with, in place of a simulation.
type limiter struct {
	handler http.Handler
	header  http.Header
	limited atomic.Pointer[string]
}

func (l *limiter) limit(path string) { l.limited.Store(&path) }

func (l *limiter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if path := l.limited.Load(); path == nil || !strings.HasPrefix(r.URL.Path, *path) {
		l.handler.ServeHTTP(w, r)
		return
	}
	for name, values := range l.header {
		w.Header()[name] = values
	}
	w.WriteHeader(http.StatusTooManyRequests)
}

// rateLimitTest runs in a bubble, on a mount with three configs of keys of their own:
// us-south and eu-de at one host, and on-prem at another.
func rateLimitTest(t *testing.T, header http.Header, test func(m *mount, limits *limiter, calls *callGauge)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		limits := &limiter{handler: sim, header: header}
		calls := &callGauge{handler: limits}
		m := newPipedMount(t, sim, hosts{calls, map[string]http.Handler{"127.0.0.9": sim}})
		m.defaults = map[string]any{"iam_url": m.url}
		m.begin()
		m.writeConfig("us-south", nil)
		m.writeConfig("eu-de", map[string]any{"api_key": m.newKey(), "verify": false})
		m.writeConfig("on-prem", map[string]any{"api_key": m.newKey(), "verify": false, "token_url": "http://127.0.0.9/apikey", "iam_url": "http://127.0.0.9"})
		test(m, limits, calls)
	})
}

func retryAfterHeader(value string) http.Header { return http.Header{"Retry-After": {value}} }

func TestRateLimit_ofATokenServiceHoldsForAllItsConfigs(t *testing.T) {
	for name, header := range map[string]http.Header{
		"seconds": retryAfterHeader("600"),
		"reset":   {"X-Ratelimit-Reset": {"600"}},
	} {
		t.Run(name, func(t *testing.T) {
			rateLimitTest(t, header, func(m *mount, limits *limiter, calls *callGauge) {
				limits.limit("/apikey")
				m.failure(logical.UpdateOperation, "token/us-south", nil)
				before := calls.total()
				for range 20 {
					status, text := m.failure(logical.ReadOperation, "token/eu-de", nil)
					if status != http.StatusServiceUnavailable || !strings.Contains(text, "asks to be called less often (HTTP 429)") || !strings.Contains(text, "the next attempt is possible in") {
						t.Fatalf("another config is answered %d %s", status, text)
					}
					m.readToken("us-south")
				}
				status := m.readStatus("eu-de")
				if status["consecutive_failures"] != int64(0) || status["retry_at"] != time.Now().Add(10*time.Minute).UTC().Format(time.RFC3339) {
					t.Errorf("its status is %v", status)
				}
				if got := calls.total() - before; got != 0 {
					t.Errorf("the service was called %d times", got)
				}
				m.readToken("on-prem")
				limits.limited.Store(nil)
				time.Sleep(10 * time.Minute)
				m.readToken("eu-de")
			})
		})
	}
}

func TestRateLimit_isThatOfAHostAndItsCA(t *testing.T) {
	base := rateLimitID("https://iam.example/identity/token", "ca")
	for url, same := range map[string]bool{
		"https://iam.example": true, "https://iam.example:443": true, "https://IAM.example/v1/apikeys": true,
		"https://iam.example:8443": false, "http://iam.example": false, "https://iam2.example": false,
	} {
		if got := rateLimitID(url, "ca") == base; got != same {
			t.Errorf("%s: the same is %t", url, got)
		}
	}
	if rateLimitID("https://iam.example", "") == base {
		t.Error("another CA is the same service")
	}
}

// TestRateLimit_ofAnIssuerHoldsForAllItsConfigs has IAM limit the calls about keys.
func TestRateLimit_ofAnIssuerHoldsForAllItsConfigs(t *testing.T) {
	for _, path := range []string{"/v1/apikeys", "/identity/token"} {
		t.Run(path, func(t *testing.T) {
			rateLimitTest(t, retryAfterHeader("600"), func(m *mount, limits *limiter, calls *callGauge) {
				m.readToken("eu-de")
				limits.limit(path)
				m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
				before, keys := calls.total(), len(m.sim.Keys())
				for range 20 {
					status, text := m.failure(logical.UpdateOperation, "config/eu-de/rotate", nil)
					if status != http.StatusServiceUnavailable || !strings.Contains(text, "the next attempt is possible in") {
						t.Fatalf("another config is answered %d %s", status, text)
					}
					m.readToken("eu-de")
				}
				if got := calls.total() - before; got != 0 || len(m.sim.Keys()) != keys {
					t.Errorf("the issuer was called %d times, and has %d keys", got, len(m.sim.Keys()))
				}
				m.rotate("on-prem")
				limits.limited.Store(nil)
				time.Sleep(10*time.Minute + time.Second)
				m.rotate("eu-de")
			})
		})
	}
}

// TestRateLimit_isNoLongerThanTheServiceAsked has many configs meet it, one after the other.
func TestRateLimit_isNoLongerThanTheServiceAsked(t *testing.T) {
	rateLimitTest(t, retryAfterHeader("60"), func(m *mount, limits *limiter, _ *callGauge) {
		limits.limit("/apikey")
		m.failure(logical.UpdateOperation, "token/us-south", nil)
		limits.limited.Store(nil)
		for range 59 {
			time.Sleep(time.Second)
			m.failure(logical.ReadOperation, "token/eu-de", nil)
			m.failure(logical.UpdateOperation, "token/us-south", nil)
		}
		time.Sleep(time.Second)
		m.readToken("eu-de")
		m.must(logical.UpdateOperation, "token/us-south", nil)
	})
}

// TestRateLimit_needsATime has a service ask for no time, which is for the one key.
func TestRateLimit_needsATime(t *testing.T) {
	for name, fault := range map[string]apicsim.Fault{
		"429 without a time": {Kind: apicsim.KindStatus, Status: 429, Times: 1},
		"503 with one":       {Kind: apicsim.KindStatus, Status: 503, RetryAfter: "600", Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			rateLimitTest(t, nil, func(m *mount, _ *limiter, _ *callGauge) {
				m.sim.Inject(fault)
				m.failure(logical.UpdateOperation, "token/us-south", nil)
				m.readToken("eu-de")
			})
		})
	}
}

// TestIssuerOf_groupsByAddressAndCA keeps a config whose issuer has another CA from
// having the rotations of others wait.
func TestIssuerOf_groupsByAddressAndCA(t *testing.T) {
	plan := func(ca string) rotation.Plan { return rotation.Plan{Issuer: "https://iam.example", CACert: ca} }
	group := issuerOf(nil, plan("ca"))
	if group != issuerOf(nil, plan("ca")) || group == issuerOf(nil, plan("")) || group == issuerOf(nil, plan("another")) {
		t.Errorf("the group is %q", group)
	}
	left := &rotation.Record{Retired: []rotation.Retired{{Key: rotation.Key{Binding: rotation.Binding{Issuer: "https://iam.example", CACert: "ca"}}}}}
	if got := issuerOf(left, plan("")); got != group {
		t.Errorf("a replaced key's group is %q", got)
	}
	failed := &upstream.Error{Host: "iam.example", RetryAfter: time.Minute}
	if wait, unavailable := isIssuerUnavailable(group, failed); !unavailable || wait != time.Minute {
		t.Errorf("it is backed off for %s: %t", wait, unavailable)
	}
}
