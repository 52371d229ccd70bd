// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// The tests here put a mount into the states that operators have to recognise, and
// hold what status, log and metrics say of each.

// showsItself is what a bad state looks like.
type showsItself struct {
	// status is the text of last_error, log that of the line, and metrics one of the
	// lines that are exposed.
	status, log, metrics string
}

func (m *mount) requireShown(want showsItself) {
	m.Helper()
	status := m.must(logical.ReadOperation, "status/us-south", nil).Data
	if why, _ := status["last_error"].(string); !strings.Contains(why, want.status) {
		m.Errorf("status has the error %q, not %q", why, want.status)
	}
	if status["consecutive_failures"].(int64) < 1 || status["last_error_time"] == nil {
		m.Errorf("status counts %v failures, the last at %v", status["consecutive_failures"], status["last_error_time"])
	}
	if log := m.log.String(); strings.Count(log, want.log) != 1 {
		m.Errorf("log does not have %q once:\n%s", want.log, log)
	}
	exposed := string(m.must(logical.ReadOperation, "metrics", nil).Data[logical.HTTPRawBody].([]byte))
	if !strings.Contains(exposed, want.metrics) {
		m.Errorf("metrics lack %q", want.metrics)
	}
}

// fail has somebody ask for a new token, in vain, some times over.
func (m *mount) fail() {
	m.Helper()
	for range 3 {
		m.failure(logical.UpdateOperation, "token/us-south", nil)
		time.Sleep(2 * time.Minute)
	}
}

// A key that was revoked is shown as one that is refused.
func TestBadState_revokedKey(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.RevokeKey(testKey)
		m.fail()
		m.requireShown(showsItself{
			"refused the API key (HTTP 401)", "[WARN]  exchanges fail", `vault_apic_exchanges_total{outcome="refused",service="login"} 3`,
		})
	})
}

// A service that is down is shown as one.
func TestBadState_serviceDown(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable})
		m.fail()
		m.requireShown(showsItself{
			"failed with HTTP 503", "[WARN]  exchanges fail", `vault_apic_exchanges_total{outcome="unavailable",service="login"} 3`,
		})
	})
}

// A clock that is ahead of the service's is reported, and by how much.
func TestBadState_clockAhead(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetTokenTTL(5 * time.Minute)
		m.sim.SetClockSkew(-10 * time.Minute)
		m.fail()
		m.requireShown(showsItself{
			"answered a token that expired 5m0s ago; this host's clock is 10m0s ahead of the service's",
			"[WARN]  exchanges fail", `vault_apic_exchanges_total{outcome="unavailable",service="login"} 3`,
		})
	})
}

// TestBadState_clockBehind has tokens that, by this host's clock, are not valid yet.
func TestBadState_clockBehind(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.sim.SetClockSkew(10 * time.Minute)
		m.must(logical.UpdateOperation, "config/us-south", m.configData(nil))
		m.log.take()
		for range 40 {
			data := m.readToken("us-south")
			expires, err := time.Parse(time.RFC3339, data["expires_at"].(string))
			if err != nil || time.Until(expires) > time.Hour {
				t.Fatalf("a token of an hour is said to end in %s (%v)", time.Until(expires), err)
			}
			time.Sleep(10 * time.Minute)
		}
		status := m.must(logical.ReadOperation, "status/us-south", nil).Data
		if ahead, _ := status["clock_skew"].(int64); ahead > -599 || ahead < -601 {
			t.Errorf("status says that the clock is %v s ahead", status["clock_skew"])
		}
		if lines := m.log.take(); len(lines) != 1 || !strings.Contains(lines[0], "[WARN]  this host's clock differs") || !strings.Contains(lines[0], "ahead=-10m0s") {
			t.Errorf("the log says %q", lines)
		}
		exposed := string(m.must(logical.ReadOperation, "metrics", nil).Data[logical.HTTPRawBody].([]byte))
		if !strings.Contains(exposed, `vault_apic_clock_skew_seconds{config="us-south"} -`) {
			t.Error("metrics do not tell of the clock")
		}
		m.sim.SetClockSkew(0)
		m.readToken("us-south")
		time.Sleep(time.Hour)
		m.readToken("us-south")
		if lines := m.log.take(); len(lines) != 1 || !strings.Contains(lines[0], "agrees") {
			t.Errorf("after the clock was set right the log says %q", lines)
		}
	})
}

// A certificate that expired is reported with its date.
func TestBadState_expiredCertificate(t *testing.T) {
	m := newMount(t)
	server, err := apicsim.StartTLSUntil(m.sim, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	m.writeConfig("us-south", map[string]any{"token_url": server.URL() + "/apikey", "ca_cert": server.CACertPEM(), "verify": false})
	m.failure(logical.UpdateOperation, "token/us-south", nil)
	m.requireShown(showsItself{
		"showed a certificate that expired at 2026-01-02T03:04:05Z", "[WARN]  exchanges fail",
		`vault_apic_exchanges_total{outcome="unavailable",service="login"} 1`,
	})
}

// A config that was restored from a snapshot older than a rotation says that its key
// may be old.
func TestBadState_snapshotFromBeforeARotation(t *testing.T) {
	for service, says := range map[string]string{
		"login": "a restored snapshot may hold one that was rotated since",
		"iam":   "rotated since the snapshot that was restored",
	} {
		t.Run(service, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newRotationMount(t)
				m.writeConfig("us-south", map[string]any{"token_service": service, "token_url": m.url + servicePaths()[service]})
				snapshot, err := m.storage.Get(context.Background(), "config/us-south")
				if err != nil {
					t.Fatal(err)
				}
				m.rotate("us-south")
				if err := m.storage.Put(context.Background(), snapshot); err != nil {
					t.Fatal(err)
				}
				m.restart()
				m.fail()
				m.requireShown(showsItself{
					says, "[WARN]  exchanges fail", `vault_apic_exchanges_total{outcome="refused",service="` + service + `"} 3`,
				})
			})
		})
	}
}
