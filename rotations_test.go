// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// putConfigs stores configs behind the mount's back, of a key and an identity each, and
// returns their names.
func (m *mount) putConfigs(n int, change func(*config)) (names []string) {
	m.Helper()
	taken := len(m.sim.Keys())
	for i := range n {
		name := fmt.Sprintf("config-%s-%d", time.Now().Format("150405"), i)
		key := testKey + "-" + name
		m.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: fmt.Sprintf("IBMid-%d", taken+i)})
		c := defaultConfig(time.Now())
		c.Keys = rotation.New(name, upstream.Secret(key))
		c.Region, c.TokenURL, c.APIURL, c.IAMURL, c.MaxRetries = "us-south", m.url+"/apikey", m.url, m.url, 0
		c.RotationPeriod = 24 * time.Hour
		c.Revision = newRevision()
		if change != nil {
			change(c)
		}
		m.putConfig(name, c)
		names = append(names, name)
	}
	return names
}

// isRotated says whether a config has a key that a rotation has made.
func (m *mount) isRotated(name string) bool { return m.storedConfigOf(name).Keys.Current.Managed }

// TestRotations_writeThatFailedLateIsScheduled has a config be created by a write that
// fails and takes effect, at once or later. Nobody reads the config.
func TestRotations_writeThatFailedLateIsScheduled(t *testing.T) {
	for _, later := range []time.Duration{0, 20 * time.Second} {
		t.Run(later.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newRotationMount(t)
				m.storage.lateFailures.Store(later == 0)
				m.storage.lateBy.Store(int64(later))
				m.failure(logical.CreateOperation, "config/us-south", m.configData(map[string]any{"rotation_period": "1h"}))
				m.storage.lateFailures.Store(false)
				m.storage.lateBy.Store(0)
				m.ticks(65 * time.Minute)
				if !m.isRotated("us-south") {
					t.Error("the key was not rotated")
				}
			})
		})
	}
}

// TestRotations_deletionThatFailedLateIsRemoved has it take effect, at once or later.
func TestRotations_deletionThatFailedLateIsRemoved(t *testing.T) {
	for _, later := range []time.Duration{0, 20 * time.Second} {
		t.Run(later.String(), func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
				m.storage.lateFailures.Store(later == 0)
				m.storage.lateDeletions.Store(int64(later))
				m.failure(logical.DeleteOperation, "config/us-south", nil)
				m.storage.lateFailures.Store(false)
				m.storage.lateDeletions.Store(0)
				m.ticks(2 * time.Minute)
				if _, held := m.backend.configs.holders.OtherHolder(rotation.Ref{}, testKey); held {
					t.Error("the config still holds its key")
				}
				calls := m.storage.calls.Load()
				m.ticks(2 * time.Hour)
				if got := m.storage.calls.Load() - calls; got != 0 {
					t.Errorf("%d storage calls for a config that is gone", got)
				}
				if m.sim.Counts().KeysCreated != 0 || strings.Contains(m.log.String(), "rotating the api key failed") {
					t.Error("a rotation was tried")
				}
			})
		})
	}
}

// TestRotations_stepThatFailedLateIsScheduled has one put of a scheduled rotation,
// which deletes the old key at once, fail and take effect when all is done. Nobody
// reads the config.
func TestRotations_stepThatFailedLateIsScheduled(t *testing.T) {
	for failing := 1; failing <= 5; failing++ {
		t.Run(fmt.Sprint("put ", failing), func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "24h", "rotation_grace_period": "0s"})
				var puts atomic.Int64
				before := func() {
					m.storage.lateBy.Store(0)
					if puts.Add(1) == int64(failing) {
						m.storage.lateBy.Store(int64(20 * time.Second))
					}
				}
				m.storage.beforePut.Store(&before)
				for end := time.Now().Add(25 * time.Hour); puts.Load() < int64(failing); m.tick() {
					if time.Sleep(time.Minute); time.Now().After(end) {
						t.Fatal("the rotation is over before that")
					}
				}
				m.ticks(10 * time.Minute)
				m.requireOneKey("us-south")
				m.requireNothingPending()
				if got := m.sim.Counts().KeysCreated; got != 1 {
					t.Errorf("%d keys were created", got)
				}
			})
		})
	}
}

// TestRotations_writeBetweenAnAdvanceAndItsEnd has a write come when the schedule has given
// the claim back, and has not said yet when it comes again.
func TestRotations_writeBetweenAnAdvanceAndItsEnd(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.backend.rotations.setAdvancing(usSouth, true)
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
		m.backend.rotations.setAdvancing(usSouth, false)
		m.ticks(65 * time.Minute)
		if !m.isRotated("us-south") {
			t.Error("the key was not rotated")
		}
	})
}

// TestRotations_unreadableConfigStopsNoOther has storage not give one entry.
func TestRotations_unreadableConfigStopsNoOther(t *testing.T) {
	rotationTest(t, func(m *mount) {
		names := m.putConfigs(3, func(c *config) { c.NextRotation = time.Now().Add(time.Hour) })
		broken := "config/" + names[1]
		m.storage.unreadable.Store(&broken)
		m.restart()
		m.begin()
		m.rotate("us-south")
		m.writeConfig("eu-de", map[string]any{"api_key": m.newKey()})
		m.ticks(65 * time.Minute)
		for _, name := range []string{names[0], names[2]} {
			if !m.isRotated(name) {
				t.Errorf("%s was not rotated", name)
			}
		}
		if !m.isRotated("us-south") {
			t.Error("us-south was not rotated")
		}
		if !strings.Contains(m.log.String(), "not all configs can be read") {
			t.Error("the log does not say that a config cannot be read")
		}
		m.storage.unreadable.Store(nil)
		m.ticks(2 * time.Hour)
		if !m.isRotated(names[1]) {
			t.Error("the config that can be read again was not rotated")
		}
		m.requireNothingPending()
	})
}

// TestRotations_restartReadsEachConfigOnce asks for twenty rotations at once, of a thousand
// configs, right after a restart.
func TestRotations_restartReadsEachConfigOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		const configs, asked = 1000, 20
		names := m.putConfigs(configs, nil)
		m.restart()
		calls := m.storage.calls.Load()
		m.initializeBackend()
		var all sync.WaitGroup
		for _, name := range names[:asked] {
			all.Go(func() { m.rotate(name) })
		}
		all.Wait()
		m.ticks(5 * time.Minute)
		for _, name := range names[:asked] {
			if !m.isRotated(name) {
				t.Errorf("%s was not rotated", name)
			}
		}
		got := m.storage.calls.Load() - calls
		t.Logf("%d storage calls, %d of them for each rotation", got, (got-configs-2)/asked)
		if most := int64(configs + 2 + asked*25); got > most {
			t.Errorf("%d storage calls, more than %d", got, most)
		}
		calls = m.storage.calls.Load()
		m.writeConfig("us-south", nil)
		if got := m.storage.calls.Load() - calls; got > 10 {
			t.Errorf("a write makes %d storage calls", got)
		}
	})
}

// TestRotations_noneWaitsForTheReadingOfAll has the reading of the others hang.
func TestRotations_noneWaitsForTheReadingOfAll(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.restart()
		m.initializeBackend()
		m.backend.rotations.listing <- struct{}{} // As if all configs were being read, for ever.
		time.Sleep(rotation.LateWriteTime + time.Second)
		began := time.Now()
		m.rotate("us-south")
		synctest.Wait()
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 1})
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("the rotation took %s", waited)
		}
		<-m.backend.rotations.listing
		m.waitForCleanup()
		m.requireOneKey("us-south")
	})
}

// TestRotations_firstWritesReadAllOnce has many writes bring keys at once, after a restart,
// before all configs were read in the background.
func TestRotations_firstWritesReadAllOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		m.putConfigs(100, nil)
		m.restart()
		m.initializeBackend()
		calls := m.storage.calls.Load()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() { m.writeConfig(fmt.Sprintf("new-%d", i), nil) })
		}
		all.Wait()
		if got := m.storage.calls.Load() - calls; got > 102+20*5 {
			t.Errorf("%d storage calls", got)
		}
	})
}

// TestRotations_panicWhileAllAreReadIsSurvived has storage panic once.
func TestRotations_panicWhileAllAreReadIsSurvived(t *testing.T) {
	rotationTest(t, func(m *mount) {
		panicking := &panickingStorage{Storage: m.storage.Storage}
		m.storage.Storage = panicking
		m.restart()
		m.initializeBackend()
		time.Sleep(rotation.LateWriteTime - time.Second)
		panicking.armed.Store(true)
		time.Sleep(readAgain + 5*time.Second)
		if panicking.armed.Load() {
			t.Fatal("nothing was read")
		}
		m.rotate("us-south")
		m.ticks(10 * time.Minute)
		if live := m.liveKeys(); len(live) != 1 {
			t.Errorf("IAM holds %d keys: replaced ones are not deleted any more", len(live))
		}
	})
}

// hosts serves some hosts of their own, and gives the rest to another handler.
type hosts struct {
	http.Handler
	byHost map[string]http.Handler
}

func (h hosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if own, ok := h.byHost[r.Host]; ok {
		own.ServeHTTP(w, r)
		return
	}
	h.Handler.ServeHTTP(w, r)
}

// newHostsMount is newRotationMount with hosts of their own.
func newHostsMount(t *testing.T, byHost map[string]http.Handler) *mount {
	t.Helper()
	sim := newSim(t)
	m := newPipedMount(t, sim, hosts{sim, byHost})
	m.defaults = map[string]any{"iam_url": m.url}
	m.begin()
	return m
}

// TestRotations_hangingIAMStarvesNoOther has an IAM hang for more configs than run at a
// time, all of them due at once with those of another IAM.
func TestRotations_hangingIAMStarvesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // Else the server does not see that its client leaves.
			<-r.Context().Done()
		})
		m := newHostsMount(t, map[string]http.Handler{"127.0.0.9": hang})
		due := time.Now().Add(time.Hour)
		m.putConfigs(40, func(c *config) { c.IAMURL, c.NextRotation = "http://127.0.0.9", due })
		time.Sleep(time.Second)
		others := m.putConfigs(8, func(c *config) { c.NextRotation = due.Add(time.Second) })
		m.restart()
		m.begin()
		time.Sleep(time.Until(due.Add(5 * time.Second)))
		synctest.Wait()
		for _, name := range others {
			if !m.isRotated(name) {
				t.Errorf("%s waits for another issuer", name)
			}
		}
	})
}

// TestRotations_nodesThatMayNotWriteDoNothing reads configs that have something due on
// nodes that forward writes.
func TestRotations_nodesThatMayNotWriteDoNothing(t *testing.T) {
	for _, state := range []consts.ReplicationState{consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary} {
		t.Run(state.GetPerformanceString(), func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.must(logical.PatchOperation, "config/us-south", map[string]any{"rotation_period": "1h"})
				m.must(logical.UpdateOperation, "config/us-south/rotate", nil)
				m.replication = state
				m.restart()
				m.initializeBackend()
				m.storage.refuseWrites.Store(true)
				for _, path := range []string{"token/us-south", "config/us-south", "status/us-south"} {
					m.must(logical.ReadOperation, path, nil)
				}
				calls, exchanges := m.storage.calls.Load(), m.sim.Counts().Exchanges
				m.ticks(2 * time.Hour)
				if got := m.storage.calls.Load() - calls; got != 0 {
					t.Errorf("%d storage calls", got)
				}
				if got := m.sim.Counts().Exchanges - exchanges; got > 1 { // The shared token is replaced once.
					t.Errorf("%d exchanges", got)
				}
				calls = m.storage.calls.Load()
				for path, op := range map[string]logical.Operation{
					"config/us-south": logical.UpdateOperation, "config/us-south/rotate": logical.UpdateOperation, "endpoints/us-south": logical.UpdateOperation,
				} {
					if _, err := m.do(op, path, nil); err != logical.ErrReadOnly {
						t.Errorf("%s: the error is %v", path, err)
					}
				}
				if got := m.storage.calls.Load() - calls; got != 0 {
					t.Errorf("%d storage calls before requests are forwarded", got)
				}
			})
		})
	}
}

// TestRotations_unloadIsReportedToTheCaller asks for a rotation of a mount that ends.
func TestRotations_unloadIsReportedToTheCaller(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.readToken("us-south")
		m.backend.rotations.Close()
		status, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
		if status != http.StatusServiceUnavailable || !strings.Contains(text, "being unloaded") {
			t.Errorf("responded %d %s", status, text)
		}
	})
}

// TestRotations_whatKeepsAnIssuersOthersWaiting asks an issuer as configs with different
// CAs do: only what all of them would see counts as the issuer's.
func TestRotations_whatKeepsAnIssuersOthersWaiting(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	start := func(fault apicsim.Fault) *apicsim.Server {
		sim := newSim(t)
		sim.Inject(fault)
		server, err := apicsim.StartTLS(sim)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		return server
	}
	well, failing, gone := start(apicsim.Fault{}), start(apicsim.Fault{Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable}), start(apicsim.Fault{})
	odd := start(apicsim.Answering("odd"))
	gone.Close()
	for name, c := range map[string]struct {
		issuer *apicsim.Server
		caCert string
		want   bool
	}{
		"it fails":                             {failing, failing.CACertPEM(), true},
		"it is not there":                      {gone, gone.CACertPEM(), true},
		"it answers what nobody can use":       {odd, odd.CACertPEM(), false},
		"a CA was made up for it":              {well, failing.CACertPEM(), false},
		"the system's CAs do not vouch for it": {well, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.backend.issuer.Login(t.Context(), rotation.Binding{Issuer: c.issuer.URL(), CACert: c.caCert}, testKey)
			if err == nil {
				t.Fatal("the login succeeded")
			}
			if _, got := isIssuerUnavailable(c.issuer.URL(), err); got != c.want {
				t.Errorf("the others wait is %t after: %v", got, err)
			}
		})
	}
}

// TestRotations_writeMeetsNoStepThatItCaused writes a config again and again that has a
// replaced key: to read what is stored is no reason to look after that key.
func TestRotations_writeMeetsNoStepThatItCaused(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "24h"})
		time.Sleep(time.Minute)
		before := m.storage.calls.Load()
		for range 100 {
			if err := m.backend.configs.read(m.Context(), rotation.Ref{Config: "us-south"}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := m.storage.calls.Load() - before; got != 100 {
			t.Errorf("100 reads make %d storage calls", got)
		}
	})
}
