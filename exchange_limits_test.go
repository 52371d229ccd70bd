// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// limitsTest runs in a bubble, on a mount with a config, us-south, whose key works.
// calls are the requests that reach the services.
func limitsTest(t *testing.T, test func(m *mount, calls *callGauge)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim := newSimWith(t, apicsim.Options{Keys: []string{testKey}, ClientID: "client", ClientSecret: testClientSecret})
		calls := &callGauge{handler: sim}
		m := newPipedMount(t, sim, calls)
		m.writeConfig("us-south", nil)
		test(m, calls)
	})
}

// callGauge counts the calls of a handler, those in flight, and the most of these.
type callGauge struct {
	handler http.Handler

	mu                sync.Mutex
	all, now, highest int
	// arrived, if set, is called when a call begins.
	arrived func()
}

func (g *callGauge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if arrived := g.begin(); arrived != nil {
		arrived()
	}
	defer g.end()
	g.handler.ServeHTTP(w, r)
}

func (g *callGauge) begin() (arrived func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all++
	g.now++
	g.highest = max(g.highest, g.now)
	return g.arrived
}

func (g *callGauge) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now--
}

func (g *callGauge) onArrival(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arrived = do
}

// total returns how many calls there were, inFlight how many there are, and most the
// most that there were at a time.
func (g *callGauge) total() int    { return g.read(&g.all) }
func (g *callGauge) inFlight() int { return g.read(&g.now) }
func (g *callGauge) most() int     { return g.read(&g.highest) }

func (g *callGauge) read(n *int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return *n
}

// attempt makes a request with a context, and returns what went wrong.
func (m *mount) attempt(ctx context.Context, op logical.Operation, path string, data map[string]any) error {
	if data == nil {
		data = map[string]any{}
	}
	resp, err := m.backend.HandleRequest(ctx, &logical.Request{Operation: op, Path: path, Data: data, Storage: m.storage})
	if err == nil && resp.IsError() {
		err = resp.Error()
	}
	return err
}

// attemptAndLeave makes a request whose client leaves as soon as a service is called.
func (m *mount) attemptAndLeave(calls *callGauge, op logical.Operation, path string, data map[string]any) error {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	calls.onArrival(leave)
	defer calls.onArrival(nil)
	defer synctest.Wait() // The call that was left gets what the service has for it before others come.
	return m.attempt(ctx, op, path, data)
}

// ofCode is the HTTP status of an error, 400 for what a response carries.
func ofCode(err error) int {
	var coded logical.HTTPCodedError
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return http.StatusBadRequest
}

// TestBackoff_ofARefusedKeyCannotBeBypassed has somebody without the key, who may do
// everything with configs, try twenty times to have it sent.
func TestBackoff_ofARefusedKeyCannotBeBypassed(t *testing.T) {
	background := context.Background()
	for name, try := range map[string]func(m *mount, calls *callGauge, i int) error{
		"reads": func(m *mount, _ *callGauge, _ int) error {
			return m.attempt(background, logical.ReadOperation, "token/us-south", map[string]any{"min_ttl": "30m"})
		},
		"patches that verify": func(m *mount, _ *callGauge, i int) error {
			return m.attempt(background, logical.PatchOperation, "config/us-south", map[string]any{"verify": true, "max_retries": i % 2})
		},
		"writes of the same key": func(m *mount, _ *callGauge, _ int) error {
			return m.attempt(background, logical.UpdateOperation, "config/us-south", m.configData(nil))
		},
		"writes of the same key, each with a read": func(m *mount, _ *callGauge, _ int) error {
			m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"verify": false}))
			return m.attempt(background, logical.ReadOperation, "token/us-south", nil)
		},
		"other configs with the same key": func(m *mount, _ *callGauge, i int) error {
			return m.attempt(background, logical.CreateOperation, fmt.Sprint("config/other-", i), m.configData(nil))
		},
		"deletions and creations": func(m *mount, _ *callGauge, _ int) error {
			m.must(logical.DeleteOperation, "config/us-south", nil)
			return m.attempt(background, logical.CreateOperation, "config/us-south", m.configData(nil))
		},
		"invalidations and reads": func(m *mount, _ *callGauge, _ int) error {
			m.backend.InvalidateKey(background, "config/us-south")
			return m.attempt(background, logical.ReadOperation, "token/us-south", nil)
		},
		"updates": func(m *mount, _ *callGauge, _ int) error {
			return m.attempt(background, logical.UpdateOperation, "token/us-south", nil)
		},
		"updates whose client leaves": func(m *mount, calls *callGauge, _ int) error {
			return m.attemptAndLeave(calls, logical.UpdateOperation, "token/us-south", nil)
		},
		"patches whose client leaves": func(m *mount, calls *callGauge, _ int) error {
			return m.attemptAndLeave(calls, logical.PatchOperation, "config/us-south", map[string]any{"verify": true})
		},
		"creations whose client leaves": func(m *mount, calls *callGauge, i int) error {
			return m.attemptAndLeave(calls, logical.CreateOperation, fmt.Sprint("config/other-", i), m.configData(nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			limitsTest(t, func(m *mount, calls *callGauge) {
				time.Sleep(45 * time.Minute) // The shared token is due.
				m.sim.RevokeKey(testKey)
				m.sim.Inject(apicsim.Fault{Latency: 10 * time.Millisecond})
				before := calls.total()
				for i := range 20 {
					err := try(m, calls, i)
					if i > 0 && (err == nil || !strings.Contains(err.Error(), "refused the API key") || !strings.Contains(err.Error(), "the next attempt is possible in")) {
						t.Errorf("attempt %d: error is %v", i, err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if got := calls.total() - before; got != 1 {
					t.Errorf("the key was sent %d times", got)
				}
				if log := m.log.String(); strings.Contains(log, "recovered from a panic") {
					t.Error(log)
				}
			})
		})
	}
}

// TestBackoff_countsAnAnswerToAReplacedConfig has each exchange find its config
// replaced before the answer comes, whereupon its reader begins anew.
func TestBackoff_countsAnAnswerToAReplacedConfig(t *testing.T) {
	limitsTest(t, func(m *mount, calls *callGauge) {
		time.Sleep(45 * time.Minute) // The shared token is due.
		m.sim.RevokeKey(testKey)
		m.sim.Inject(apicsim.Fault{Latency: time.Second})
		before := calls.total()
		calls.onArrival(func() {
			go func() {
				_ = m.attempt(context.Background(), logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 0})
			}()
		})
		for range 20 {
			m.failure(logical.ReadOperation, "token/us-south", map[string]any{"min_ttl": "30m"})
			time.Sleep(100 * time.Millisecond)
		}
		if got := calls.total() - before; got > 8 {
			t.Errorf("the key was sent %d times before the first answer counted", got)
		}
	})
}

func TestBackoff_isNotThatOfAnotherKeyOrDestination(t *testing.T) {
	for name, write := range map[string]func(m *mount) map[string]any{
		"another key": func(m *mount) map[string]any {
			m.sim.AddKey("another-key")
			return map[string]any{"api_key": "another-key"}
		},
		"another address": func(m *mount) map[string]any { return map[string]any{"token_url": "http://127.0.0.2/apikey"} },
		"another service": func(m *mount) map[string]any {
			return map[string]any{"token_service": "iam", "token_url": m.url + "/identity/token"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			limitsTest(t, func(m *mount, _ *callGauge) {
				m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503, RetryAfter: "600", Times: 1})
				m.failure(logical.UpdateOperation, "token/us-south", nil)
				m.must(logical.UpdateOperation, "config/us-south", m.configData(write(m)))
				m.must(logical.UpdateOperation, "token/us-south", nil)
				if status, text := m.failure(logical.CreateOperation, "config/eu-de", m.configData(nil)); status != http.StatusServiceUnavailable {
					t.Errorf("the first one may be asked again: %d %s", status, text)
				}
			})
		})
	}
}

// TestBackoff_isNotThatOfTheClient has somebody who may write a config of the platform
// service change who asks.
func TestBackoff_isNotThatOfTheClient(t *testing.T) {
	limitsTest(t, func(m *mount, calls *callGauge) {
		m.writeConfig("onprem", map[string]any{
			"token_service": "platform", "token_url": m.url + "/api/token", "client_id": "client", "client_secret": testClientSecret, "renew": false,
		})
		m.sim.RevokeKey(testKey)
		before := calls.total()
		for i := range 20 {
			_ = m.attempt(context.Background(), logical.PatchOperation, "config/onprem", map[string]any{
				"client_id": fmt.Sprint("client-", i), "client_secret": testClientSecret, "verify": true,
			})
		}
		if got := calls.total() - before; got != 1 {
			t.Errorf("the key was sent %d times", got)
		}
	})
}

// TestExchanges_connections are kept for who wants one dedicated token after the other, and not for
// the next shared token.
func TestExchanges_connections(t *testing.T) {
	limitsTest(t, func(m *mount, _ *callGauge) {
		dials := 0
		m.backend.transports.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials++
			return m.line.Dial(ctx, network, address)
		}
		for i, step := range []struct {
			op    logical.Operation
			dials int
		}{
			{logical.UpdateOperation, 1}, {logical.UpdateOperation, 1}, {logical.ReadOperation, 1}, {logical.UpdateOperation, 2},
		} {
			if i == 2 {
				time.Sleep(45 * time.Minute) // The shared token is due.
				dials = 0
			}
			m.must(step.op, "token/us-south", nil)
			synctest.Wait()
			if dials != step.dials {
				t.Errorf("with request %d there are %d connections, want %d", i, dials, step.dials)
			}
		}
		m.writeConfig("entities", map[string]any{"cache": "entity"})
		time.Sleep(time.Minute) // The connection of the write is closed.
		dials = 0
		for _, entity := range []string{"one", "another"} {
			m.mustAs(entity, logical.ReadOperation, "token/entities", nil)
		}
		if dials != 1 {
			t.Errorf("two entities had %d connections", dials)
		}
	})
}

// TestExchanges_areEightAtATime has everybody at once ask for what takes an exchange.
func TestExchanges_areEightAtATime(t *testing.T) {
	for name, c := range map[string]struct {
		latency time.Duration
		busy    bool
	}{
		"and all are served":                {200 * time.Millisecond, false},
		"and who waits too long is told so": {2 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			limitsTest(t, func(m *mount, calls *callGauge) {
				m.sim.Inject(apicsim.Fault{Latency: c.latency})
				time.Sleep(45 * time.Minute) // The shared token is due.
				var all sync.WaitGroup
				var mu sync.Mutex
				busy := 0
				request := func(op logical.Operation, path string, data map[string]any) {
					all.Go(func() {
						began := time.Now()
						err := m.attempt(context.Background(), op, path, data)
						if err == nil {
							return
						}
						if ofCode(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "at most 8 exchanges run at a time for one config") || time.Since(began) > 35*time.Second {
							t.Errorf("after %s: %v", time.Since(began), err)
						}
						mu.Lock()
						defer mu.Unlock()
						busy++
					})
				}
				for range 300 {
					request(logical.UpdateOperation, "token/us-south", nil)
				}
				synctest.Wait()
				began := time.Now()
				m.readToken("us-south")
				if took := time.Since(began); took != c.latency {
					t.Errorf("a reader of the shared token waited %s", took)
				}
				all.Wait()
				if got := calls.most(); got != 8 {
					t.Errorf("%d calls at a time", got)
				}
				if busy > 0 != c.busy {
					t.Errorf("%d of 300 were not served", busy)
				}
			})
		})
	}
}

// TestExchanges_areEightAtATimeThroughWrites has writes replace the config, and try
// keys that are made up, while others want tokens.
func TestExchanges_areEightAtATimeThroughWrites(t *testing.T) {
	limitsTest(t, func(m *mount, calls *callGauge) {
		m.sim.Inject(apicsim.Fault{Latency: time.Second})
		var all sync.WaitGroup
		for i := range 60 {
			for _, request := range []struct {
				op   logical.Operation
				path string
				data map[string]any
			}{
				{logical.UpdateOperation, "token/us-south", nil},
				{logical.ReadOperation, "token/us-south", map[string]any{"min_ttl": "50m"}},
				{logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": fmt.Sprint("made-up-", i)})},
				{logical.PatchOperation, "config/us-south", map[string]any{"verify": i%2 == 0}},
			} {
				all.Go(func() { _ = m.attempt(context.Background(), request.op, request.path, request.data) })
			}
			time.Sleep(100 * time.Millisecond)
		}
		all.Wait()
		if got := calls.most(); got > 8 || got < 7 {
			t.Errorf("%d calls at a time", got)
		}
	})
}

func TestExchanges_ofOneConfigDoNotDelayAnother(t *testing.T) {
	limitsTest(t, func(m *mount, _ *callGauge) {
		m.writeConfig("eu-de", nil)
		m.sim.Inject(apicsim.Fault{Latency: 5 * time.Second})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { _ = m.attempt(context.Background(), logical.UpdateOperation, "token/us-south", nil) })
		}
		synctest.Wait()
		began := time.Now()
		m.must(logical.UpdateOperation, "token/eu-de", nil)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it waited %s", took)
		}
		all.Wait()
	})
}

// TestUnload_endsTheExchangesWhoseClientsLeft leaves exchanges of all kinds in flight
// at a service that does not answer. The bubble fails for a goroutine that is left.
func TestUnload_endsTheExchangesWhoseClientsLeft(t *testing.T) {
	limitsTest(t, func(m *mount, calls *callGauge) {
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindHang})
		time.Sleep(45 * time.Minute)
		for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
			_ = m.attemptAndLeave(calls, op, "token/us-south", nil)
		}
		_ = m.attemptAndLeave(calls, logical.PatchOperation, "config/us-south", map[string]any{"verify": true})
		staying := make(chan error)
		go func() {
			staying <- m.attempt(context.Background(), logical.PatchOperation, "config/us-south", map[string]any{"verify": true})
		}()
		synctest.Wait()
		if got := calls.inFlight(); got != 4 {
			t.Fatalf("%d calls are in flight", got)
		}
		unloaded := time.Now()
		m.backend.Cleanup(context.Background())
		if err := <-staying; ofCode(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "being unloaded") {
			t.Errorf("error is %v", err)
		}
		synctest.Wait()
		if took := time.Since(unloaded); calls.inFlight() != 0 || took != 0 {
			t.Errorf("%d calls are in flight after %s", calls.inFlight(), took)
		}
	})
}

func TestWrite_whoseClientLeftStoresAndSharesNothing(t *testing.T) {
	limitsTest(t, func(m *mount, calls *callGauge) {
		m.sim.AddKey("another-key")
		shared := m.readToken("us-south")["token_id"]
		m.sim.Inject(apicsim.Fault{Latency: time.Second})
		err := m.attemptAndLeave(calls, logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": "another-key", "max_retries": 2}))
		if err == nil {
			t.Error("the write succeeded")
		}
		time.Sleep(time.Minute)
		if got := m.readToken("us-south")["token_id"]; got != shared || m.storedKeyID("us-south") != m.sim.KeyID(testKey) {
			t.Error("the key or the shared token is another one")
		}
	})
}

func TestWatch_reportsNothingOfAReplacedKey(t *testing.T) {
	limitsTest(t, func(m *mount, calls *callGauge) {
		m.sim.AddKey("another-key")
		m.sim.RevokeKey(testKey)
		m.sim.Inject(apicsim.Fault{Latency: time.Second, Times: 1})
		_ = m.attemptAndLeave(calls, logical.UpdateOperation, "token/us-south", nil)
		m.must(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": "another-key"}))
		time.Sleep(time.Minute)
		if log := m.log.String(); strings.Contains(log, "exchanges fail") {
			t.Errorf("the log says:\n%s", log)
		}
	})
}

// TestLease_revokedByItsReaderCostsTenExchanges has somebody who may only read tokens
// give back each lease, as the end of a Vault token does.
func TestLease_revokedByItsReaderCostsTenExchanges(t *testing.T) {
	limitsTest(t, func(m *mount, calls *callGauge) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"lease": true})
		before := calls.total()
		for range 3600 {
			m.revoke(m.must(logical.ReadOperation, "token/us-south", nil).Secret)
			time.Sleep(time.Second)
		}
		if got := calls.total() - before; got > 10 {
			t.Errorf("%d exchanges", got)
		}
	})
}

// TestExchangeLimits_oneRefresherForAll sources: one for each would have a timer each. When the mount is
// unloaded, nothing waits any more.
func TestExchangeLimits_oneRefresherForAll(t *testing.T) {
	m := newMount(t)
	m.writeConfig("first", nil)
	m.writeConfig("second", nil)
	m.readToken("first")
	m.readToken("second")
	waiting := reflect.ValueOf(&m.backend.limits.refresher).Elem().FieldByName("waiting")
	if got := waiting.Len(); got != 2 {
		t.Errorf("%d sources wait for their refresh, not 2", got)
	}
	m.backend.Cleanup(t.Context())
	if got := waiting.Len(); got != 0 {
		t.Errorf("%d sources wait after the mount was unloaded", got)
	}
}
