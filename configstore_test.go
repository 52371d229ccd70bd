// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

var usSouth = rotation.Ref{Config: "us-south"}

// claimed is a claim on us-south, which the test releases.
func (m *mount) claimed() *claim {
	m.Helper()
	c, err := m.backend.configs.claim(context.Background(), usSouth, "tested")
	if err != nil {
		m.Fatal(err)
	}
	return c
}

func (m *mount) inUse() *entry { return m.backend.configs.inUse("us-south") }

// TestConfig_fitsItsSizeClass looks at what each config takes in memory beside its texts.
func TestConfig_fitsItsSizeClass(t *testing.T) {
	if size := reflect.TypeFor[config]().Size(); size > 512 {
		t.Errorf("a config takes %d bytes, and Go allots 576 for it", size)
	}
}

// TestStore_readerLeavesWhileStorageHangs waits for another one's read of a config.
func TestStore_readerLeavesWhileStorageHangs(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.restart()
		m.storage.hang.Store(true)
		go func() { _, _ = m.backend.configs.Get(m.Context(), "us-south") }()
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(m.Context(), time.Second)
		defer cancel()
		if _, err := m.backend.configs.Get(ctx, "us-south"); err == nil || time.Since(began) != time.Second {
			t.Errorf("it left after %s, with the error %v", time.Since(began), err)
		}
	})
}

// TestStore_outageKeepsReadersServed has a write fail, so that it is in doubt what is
// stored, and storage fail or hang from then on.
func TestStore_outageKeepsReadersServed(t *testing.T) {
	for name, breakStorage := range map[string]func(*failingStorage){
		"storage fails": func(s *failingStorage) { s.severed.Store(true) },
		"storage hangs": func(s *failingStorage) { s.hang.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				token := m.readToken("us-south")["token_id"]
				breakStorage(m.storage)
				m.failure(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 1})
				m.backend.configs.doubt(usSouth, false)
				var waited [10]time.Duration
				held := 0
				for end := time.Now().Add(25 * time.Second); time.Now().Before(end); {
					var readers sync.WaitGroup
					for i := range waited {
						readers.Go(func() {
							began := time.Now()
							if m.readToken("us-south")["token_id"] != token {
								m.Error("a reader got another token")
							}
							waited[i] = time.Since(began)
						})
					}
					readers.Wait()
					late := 0
					for _, d := range waited {
						if d > 0 {
							late++
						}
						if d > 2*time.Second {
							m.Fatalf("a reader waited %s", d)
						}
					}
					if late > 1 {
						m.Fatalf("%d readers waited at once", late)
					}
					held += late
					time.Sleep(300 * time.Millisecond)
				}
				if held > 4 { // One waits two seconds, and for five nobody does.
					m.Errorf("%d readers waited within 25 s", held)
				}
				for range 3600 {
					time.Sleep(time.Second)
					m.readToken("us-south")
				}
			})
		})
	}
}

// TestStore_putUnderWayKeepsReadersServed has a step of a rotation hang in storage while
// it is in doubt what is stored.
func TestStore_putUnderWayKeepsReadersServed(t *testing.T) {
	rotationTest(t, func(m *mount) {
		token := m.readToken("us-south")["token_id"]
		c := m.claimed()
		defer c.Release()
		m.backend.configs.doubt(usSouth, false)
		m.storage.hang.Store(true)
		saved := make(chan error)
		go func() { saved <- c.Save(context.Background(), c.Record()) }()
		synctest.Wait()
		began := time.Now()
		if m.readToken("us-south")["token_id"] != token || time.Since(began) > 0 {
			t.Errorf("a reader waited %s", time.Since(began))
		}
		if err := <-saved; err == nil {
			t.Error("the storage that hangs has stored")
		}
	})
}

// TestStore_failedPutThatTookEffectIsFound has a write of another key fail and take
// effect all the same, at once or later.
func TestStore_failedPutThatTookEffectIsFound(t *testing.T) {
	for _, later := range []time.Duration{0, 5 * time.Second, 29 * time.Second} {
		t.Run(later.String(), func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.readToken("us-south")
				before := m.inUse()
				m.storage.lateFailures.Store(later == 0)
				m.storage.lateBy.Store(int64(later))
				status, text := m.failure(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": m.newKey()}))
				if status != http.StatusInternalServerError {
					t.Errorf("responded %d %s", status, text)
				}
				m.storage.lateFailures.Store(false)
				m.storage.lateBy.Store(0)
				if later > 0 {
					m.readToken("us-south")
					if m.inUse() != before {
						t.Error("what is in use was dropped before anything else was stored")
					}
					time.Sleep(later + recheckPause)
					synctest.Wait() // For others that read it now: readers do not wait for them.
				}
				m.readToken("us-south")
				if m.inUse().config.Revision != m.storedConfigOf("us-south").Revision {
					t.Error("the next reader does not use what is stored")
				}
				time.Sleep(doubtTime)
				synctest.Wait() // The schedule looks too, and is not counted.
				m.readToken("us-south")
				calls := m.storage.calls.Load()
				m.readToken("us-south")
				if m.storage.calls.Load() != calls {
					t.Error("readers go on asking storage after the doubt has ended")
				}
			})
		})
	}
}

// TestStore_entryThatIsFoundOldIsReplaced has another one be found stored by something that
// reads it for another purpose.
func TestStore_entryThatIsFoundOldIsReplaced(t *testing.T) {
	for name, find := range map[string]func(*mount){
		"by a claim":  func(m *mount) { m.claimed().Release() },
		"by a write":  func(m *mount) { _, _ = m.backend.configs.Stored(context.Background(), "us-south") },
		"by the list": func(m *mount) { _, _ = m.backend.configs.readEach(context.Background(), []rotation.Ref{usSouth}) },
		"by a step": func(m *mount) {
			c := m.claimed()
			defer c.Release()
			m.replaceStored()
			if err := c.Save(context.Background(), c.Record()); !errors.Is(err, rotation.ErrConflict) {
				m.Errorf("the error is %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.readToken("us-south")
				old := m.inUse()
				m.replaceStored()
				find(m)
				m.readToken("us-south")
				if m.inUse() == old || m.inUse().config.Revision != m.storedConfigOf("us-south").Revision {
					t.Error("the old entry is still in use")
				}
			})
		})
	}
}

// replaceStored stores another revision of us-south behind the mount's back.
func (m *mount) replaceStored() {
	m.Helper()
	stored := m.storedConfigOf("us-south")
	m.putConfig("us-south", stored.withKeys(stored.Keys))
}

// TestStore_closedEntryLeavesUse puts what cannot happen: an entry in use whose source is
// closed. Its readers would start over with it for ever.
func TestStore_closedEntryLeavesUse(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.readToken("us-south")
		m.inUse().source.Close()
		m.readToken("us-south")
	})
}

// TestStore_unloadedWritesNothing has what was begun before the unload end after it.
func TestStore_unloadedWritesNothing(t *testing.T) {
	for name, write := range map[string]func(ctx context.Context, m *mount, c *claim) error{
		"a step":     func(ctx context.Context, _ *mount, c *claim) error { return c.Save(ctx, c.Record()) },
		"a deletion": func(ctx context.Context, _ *mount, c *claim) error { _, err := c.bury(ctx); return err },
		"a write": func(ctx context.Context, m *mount, c *claim) error {
			c.Release()
			fresh, err := m.backend.configs.wire("us-south", c.stored.withKeys(c.record), nil)
			if err != nil {
				return err
			}
			defer fresh.close()
			return m.backend.configs.Update(ctx, "us-south", c.stored, fresh, nil)
		},
		"the deletion of what nobody can read": func(ctx context.Context, m *mount, c *claim) error {
			c.Release()
			return m.backend.configs.deleteUnreadable(ctx, "us-south")
		},
	} {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				c := m.claimed()
				before := m.storedConfig("us-south")
				m.backend.Cleanup(context.Background())
				if err := write(context.Background(), m, c); !errors.Is(err, rotation.ErrClosed) {
					t.Errorf("the error is %v", err)
				}
				if m.storedConfig("us-south") != before || len(m.list(tombstoneStoragePrefix)) != 0 {
					t.Error("something was written")
				}
			})
		})
	}
}

// TestStore_unloadWaitsForWhatIsBeingWritten unloads the mount in the middle of a put.
func TestStore_unloadWaitsForWhatIsBeingWritten(t *testing.T) {
	rotationTest(t, func(m *mount) {
		c := m.claimed()
		m.backend.configs.Invalidate("us-south")
		blocked := make(chan struct{})
		before := func() { <-blocked }
		m.storage.beforePut.Store(&before)
		saved, unloaded := make(chan error, 1), make(chan struct{})
		go func() { saved <- c.Save(context.Background(), c.Record()) }()
		synctest.Wait()
		go func() {
			m.backend.Cleanup(context.Background())
			close(unloaded)
		}()
		synctest.Wait()
		select {
		case <-unloaded:
			t.Error("the unload did not wait")
		default:
		}
		close(blocked)
		<-unloaded
		if err := <-saved; err != nil {
			t.Error(err)
		}
	})
}

// TestStore_abandonedRequestIsFinished ends a request in the middle of its deletion,
// which could otherwise take effect after a later write.
func TestStore_abandonedRequestIsFinished(t *testing.T) {
	rotationTest(t, func(m *mount) {
		c := m.claimed()
		defer c.Release()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := m.backend.configs.write(ctx, usSouth, true, func(ctx context.Context) error { return ctx.Err() }); err != nil {
			t.Error(err)
		}
	})
}

// TestStore_createdHereIsCleared creates configs for longer than it is of interest
// that storage had nothing of the name.
func TestStore_createdHereIsCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRotationMount(t)
		m.restart()
		m.writeConfig("us-south", nil)
		if c := m.claimed(); !c.Plan().Fresh {
			t.Error("a config does not count as created here that was just created")
		} else {
			c.Release()
		}
		time.Sleep(rotation.LateWriteTime + time.Second)
		for i := range 10 {
			m.writeConfig(fmt.Sprintf("config-%d", i), nil)
		}
		if held := len(m.backend.configs.createdHere); held != 0 {
			t.Errorf("%d configs are remembered as created here", held)
		}
	})
}

// TestStore_readsClearNoMarkOfAClaim has others read a config between the decision to
// delete its key and the moment when that is stored.
func TestStore_readsClearNoMarkOfAClaim(t *testing.T) {
	rotationTest(t, func(m *mount) {
		old := m.storedConfigOf("us-south").Keys.Current.Value
		m.must(logical.UpdateOperation, "config/us-south/rotate", map[string]any{"grace_period": "1h"})
		synctest.Wait()
		c := m.claimed()
		holders := m.backend.configs.holders
		if err := holders.Condemn(usSouth, old); err != nil {
			t.Fatal(err)
		}
		if _, err := m.backend.configs.Stored(context.Background(), "us-south"); err != nil {
			t.Fatal(err)
		}
		eu := rotation.Ref{Config: "eu-de"}
		if err := holders.Reserve(eu, rotation.New("eu-de", old)); !errors.Is(err, rotation.ErrCondemned) {
			t.Errorf("another config may take the key: %v", err)
		}
		c.Release()
		if _, err := m.backend.configs.Stored(context.Background(), "us-south"); err != nil {
			t.Fatal(err)
		}
		if err := holders.Reserve(eu, rotation.New("eu-de", old)); err != nil {
			t.Errorf("nobody deletes the key any more, and none may take it: %v", err)
		}
	})
}

// TestStore_doubtfulWriteKeepsItsKey has a config take a key by a write that fails and
// takes effect late. Until then it is read as it was.
func TestStore_doubtfulWriteKeepsItsKey(t *testing.T) {
	rotationTest(t, func(m *mount) {
		key := m.newKey()
		m.storage.lateBy.Store(int64(20 * time.Second))
		m.failure(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": key}))
		m.storage.lateBy.Store(0)
		m.readToken("us-south")
		if _, held := m.backend.configs.holders.OtherHolder(rotation.Ref{}, rotation.Secret(key)); !held {
			t.Error("the key could be deleted")
		}
		time.Sleep(2 * doubtTime)
		for value, want := range map[string]bool{key: true, testKey: false} {
			if _, held := m.backend.configs.holders.OtherHolder(rotation.Ref{}, rotation.Secret(value)); held != want {
				t.Errorf("after the doubt a key is held: %t, want %t", held, want)
			}
		}
	})
}

// TestStore_writeWithoutEffectFreesItsKey has a config fail to take a key. Nobody reads
// it.
func TestStore_writeWithoutEffectFreesItsKey(t *testing.T) {
	rotationTest(t, func(m *mount) {
		key := m.newKey()
		m.storage.failPuts.Store(true)
		m.failure(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": key}))
		m.failure(logical.CreateOperation, "config/eu-de", m.configData(map[string]any{"api_key": key}))
		m.storage.failPuts.Store(false)
		time.Sleep(2 * doubtTime)
		if by, held := m.backend.configs.holders.OtherHolder(rotation.Ref{}, rotation.Secret(key)); held {
			t.Errorf("%s holds the key", by)
		}
	})
}

// TestStore_readOnlyIsNoDoubt has a write be refused that Vault forwards.
func TestStore_readOnlyIsNoDoubt(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.storage.refuseWrites.Store(true)
		if _, err := m.do(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 1}); err != logical.ErrReadOnly {
			t.Errorf("the error is %v", err)
		}
		if !m.backend.configs.doubts.until(usSouth).IsZero() {
			t.Error("it is in doubt what is stored")
		}
	})
}
