// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// TestChecks_inALoop has a holder of the policy check a hundred times within ten seconds,
// alone, many at once, and leaving as soon as a service is called.
func TestChecks_inALoop(t *testing.T) {
	check := func(m *mount) { m.check("us-south") }
	for name, repeat := range map[string]func(m *mount, calls *callGauge){
		"one after the other": func(m *mount, _ *callGauge) {
			for range 100 {
				check(m)
				time.Sleep(50 * time.Millisecond)
			}
		},
		"many at once": func(m *mount, _ *callGauge) {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { check(m) })
			}
			wg.Wait()
		},
		"leaving": func(m *mount, calls *callGauge) {
			for range 100 {
				_ = m.attemptAndLeave(calls, logical.ReadOperation, "config/us-south/check", nil)
				time.Sleep(50 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			gaugedTest(t, func(m *mount, calls *callGauge) {
				before := calls.total()
				repeat(m, calls)
				// A login, the key's details, the list, and the two hosts.
				if got := calls.total() - before; got != 5 {
					t.Errorf("the services were called %d times", got)
				}
				time.Sleep(checkMemory)
				check(m)
				if got := calls.total() - before; got != 10 {
					t.Errorf("later they were called %d times", got)
				}
			})
		})
	}
}

// TestChecks_writeBeginsAnew has an operator look whether what they wrote has helped.
func TestChecks_writeBeginsAnew(t *testing.T) {
	gaugedTest(t, func(m *mount, _ *callGauge) {
		m.sim.RevokeKey(testKey)
		data, _ := m.check("us-south")
		requireFinding(t, data, "api_key", resultError)
		m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": m.newKey()}))
		data, _ = m.check("us-south")
		requireFinding(t, data, "api_key", resultOK)
	})
}

// TestConfigCheck_makesNoExchangeForAFreshToken counts those of the login service alone.
func TestConfigCheck_makesNoExchangeForAFreshToken(t *testing.T) {
	gaugedTest(t, func(m *mount, _ *callGauge) {
		exchanges := func() int { return m.sim.Counts().Exchanges }
		before := exchanges()
		m.check("us-south")
		if got := exchanges() - before; got != 1 {
			t.Errorf("%d exchanges, and not the login at the issuer alone", got)
		}
		m.restart()
		m.begin()
		before = exchanges()
		data, _ := m.check("us-south")
		requireFinding(t, data, "token", resultOK)
		time.Sleep(checkMemory)
		m.check("us-south")
		m.readToken("us-south")
		if got := exchanges() - before; got != 3 {
			t.Errorf("%d exchanges for one token and two logins", got)
		}
	})
}

// TestConfigCheck_backsOff has checks of a key that is refused, and that the engine backs
// off from when they come.
func TestConfigCheck_backsOff(t *testing.T) {
	gaugedTest(t, func(m *mount, calls *callGauge) {
		m.restart()
		m.begin()
		m.sim.RevokeKey(testKey)
		for range 3 { // The backoff of a refusal grows to 20 s.
			m.failure(logical.ReadOperation, "token/us-south", nil)
			m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
			time.Sleep(20 * time.Second)
		}
		m.failure(logical.ReadOperation, "token/us-south", nil)
		m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
		synctest.Wait()
		exchanges, all := m.sim.Counts().Exchanges, calls.total()
		for range 3 {
			data, _ := m.check("us-south")
			requireFinding(t, data, "token", resultError, "not asked now", "refused the API key", "the next attempt is possible in")
			requireFinding(t, data, "api_key", resultError, "not asked now", "does not know the API key", "the next attempt is possible in")
			time.Sleep(checkMemory)
		}
		if got := m.sim.Counts().Exchanges - exchanges; got != 0 {
			t.Errorf("the key was sent %d times", got)
		}
		if got := calls.total() - all; got != 6 {
			t.Errorf("the hosts were asked %d times", got)
		}
	})
}

// TestConfigCheck_callsNoHostThatAskedForIt has a service limit its callers.
func TestConfigCheck_callsNoHostThatAskedForIt(t *testing.T) {
	gaugedTest(t, func(m *mount, calls *callGauge) {
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: http.StatusTooManyRequests, RetryAfter: "600"})
		m.failure(logical.UpdateOperation, "token/us-south", nil)
		before := calls.total()
		data, _ := m.check("us-south")
		for _, field := range []string{"api_key", "token_url", "iam_url"} {
			requireFinding(t, data, field, resultError, "not asked now", "asks to be called less often", "the next attempt is possible in 600 s")
		}
		requireFinding(t, data, "token", resultWarning, "readers share a token", "the last exchange failed")
		if got := calls.total() - before; got != 0 {
			t.Errorf("the services were called %d times", got)
		}
	})
}

// TestConfigCheck_isBounded has all services hang.
func TestConfigCheck_isBounded(t *testing.T) {
	gaugedTest(t, func(m *mount, _ *callGauge) {
		m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"request_timeout": "60s", "max_retries": 10, "verify": false}))
		m.restart()
		m.begin()
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindHang})
		began := time.Now()
		data, _ := m.check("us-south")
		if took := time.Since(began); took > checkTime {
			t.Errorf("it took %s", took)
		}
		requireFinding(t, data, "token", resultUnknown, "no response within the time", "try again")
		requireFinding(t, data, "token_url", resultOK)
	})
}

func TestChecks_runFourAtATimeOnAMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		c := newChecks(hclog.NewNullLogger, func(context.Context, string, *entry) []finding {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		})
		defer c.Close()
		var wg sync.WaitGroup
		for _, name := range strings.Split("abcdefghijklmnop", "") {
			wg.Go(func() {
				if _, _, err := c.get(t.Context(), name, &entry{config: &config{}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most != maxChecks {
			t.Errorf("%d ran at a time", most)
		}
	})
}

// TestChecks_panicAndUnload has a check panic, and one be under way at the end.
func TestChecks_panicAndUnload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChecks(hclog.NewNullLogger, func(ctx context.Context, name string, _ *entry) []finding {
			if name == "panics" {
				panic(testKey)
			}
			<-ctx.Done()
			return nil
		})
		e := &entry{config: &config{}}
		if _, _, err := c.get(t.Context(), "panics", e); err == nil {
			t.Error("a panic is no error")
		} else {
			requireNoKey(t, err.Error())
		}
		go func() { _, _, _ = c.get(t.Context(), "hangs", e) }()
		synctest.Wait()
		c.Close()
		if _, _, err := c.get(t.Context(), "late", e); ofCode(err) != http.StatusServiceUnavailable {
			t.Errorf("after the end the error is %v", err)
		}
	})
}
