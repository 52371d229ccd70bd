// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// TestClaim_excludesOthers has somebody else try to change what is claimed.
func TestClaim_excludesOthers(t *testing.T) {
	rotationTest(t, func(m *mount) {
		c := m.claimed()
		_, err := m.backend.configs.Claim(context.Background(), usSouth, "rotated")
		var claimed *rotation.ClaimedError
		if !errors.As(err, &claimed) || claimed.Why != "tested" {
			t.Errorf("the error is %v", err)
		}
		status, text := m.failure(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 1})
		if status != http.StatusConflict || !strings.Contains(text, `"us-south" is being tested`) {
			t.Errorf("responded %d %s", status, text)
		}
		c.Release()
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 1})
		m.claimed().Release()
	})
}

// TestClaim_deletionWaitsForItsRelease has a deletion come in the middle of a step.
func TestClaim_deletionWaitsForItsRelease(t *testing.T) {
	rotationTest(t, func(m *mount) {
		c := m.claimed()
		time.AfterFunc(5*time.Second, c.Release)
		began := time.Now()
		m.must(logical.DeleteOperation, "config/us-south", nil)
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("the deletion took %s", waited)
		}
		m.writeConfig("us-south", nil)
		c = m.claimed()
		defer c.Release()
		status, text := m.failure(logical.DeleteOperation, "config/us-south", nil)
		if status != http.StatusConflict || !strings.Contains(text, "is being tested") {
			t.Errorf("responded %d %s", status, text)
		}
	})
}

// TestClaim_isReleasedWhenItCannotBeRead has storage fail, and panic.
func TestClaim_isReleasedWhenItCannotBeRead(t *testing.T) {
	rotationTest(t, func(m *mount) {
		claim := func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = errors.New("it panicked")
				}
			}()
			_, err = m.backend.configs.Claim(context.Background(), usSouth, "rotated")
			return err
		}
		m.storage.failNth(1)
		if err := claim(); err == nil {
			t.Error("storage did not fail")
		}
		panicking := &panickingStorage{Storage: m.storage.Storage}
		panicking.armed.Store(true)
		m.storage.Storage = panicking
		if err := claim(); err == nil {
			t.Error("storage did not panic")
		}
		if c, err := m.backend.configs.Claim(context.Background(), rotation.Ref{Config: "none"}, "rotated"); !errors.Is(err, rotation.ErrNoRecord) || c != nil {
			t.Errorf("there is a claim %v on nothing, and the error %v", c, err)
		}
		m.claimed().Release()
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"max_retries": 1})
	})
}

// TestClaim_failedAdoptionKeepsTheTokenInUse has storage fail when a new key is adopted.
func TestClaim_failedAdoptionKeepsTheTokenInUse(t *testing.T) {
	rotationTest(t, func(m *mount) {
		token := m.readToken("us-south")["token_id"]
		c := m.claimed()
		defer c.Release()
		candidate := rotation.Key{Value: rotation.Secret(m.newKey())}
		tried, err := c.Try(context.Background(), candidate)
		if err != nil {
			t.Fatal(err)
		}
		next := c.Record()
		next.Current = &candidate
		m.storage.failPuts.Store(true)
		if err := c.Adopt(context.Background(), next, tried); err == nil {
			t.Fatal("storage did not fail")
		}
		tried.Close()
		m.storage.severed.Store(true) // From here on readers have what is in memory.
		if got := m.readToken("us-south")["token_id"]; got != token {
			t.Error("readers get another token")
		}
		m.storage.severed.Store(false)
		m.storage.failPuts.Store(false)
		if tried, err = c.Try(context.Background(), candidate); err != nil {
			t.Fatal(err)
		}
		if err := c.Adopt(context.Background(), next, tried); err != nil {
			t.Fatal(err)
		}
		exchanges := m.sim.Counts().Exchanges
		tried.Close()
		if got := m.readToken("us-south")["token_id"]; got == token || m.sim.Counts().Exchanges != exchanges {
			t.Error("readers do not share the token of the trial")
		}
	})
}

// TestClaim_saveRefusesWhatItHasNotSeen has somebody else store meanwhile.
func TestClaim_saveRefusesWhatItHasNotSeen(t *testing.T) {
	rotationTest(t, func(m *mount) {
		c := m.claimed()
		defer c.Release()
		m.replaceStored()
		stored := m.storedConfig("us-south")
		if err := c.Save(context.Background(), c.Record()); !errors.Is(err, rotation.ErrConflict) {
			t.Errorf("the error is %v", err)
		}
		if m.storedConfig("us-south") != stored {
			t.Error("it was stored")
		}
		if err := c.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := c.Save(context.Background(), c.Record()); err != nil {
			t.Error(err)
		}
	})
}

// TestClaim_panicInAStepEndsNothing has storage panic under a rotation that somebody
// asked for, in a goroutine of its own.
func TestClaim_panicInAStepEndsNothing(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.UpdateOperation, "token/us-south", nil)
		panicking := &panickingStorage{Storage: m.storage.Storage}
		m.storage.Storage = panicking
		panicking.armed.Store(true)
		status, text := m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
		if status != http.StatusInternalServerError {
			t.Errorf("responded %d %s", status, text)
		}
		requireNoKey(t, text)
		m.rotate("us-south")
		m.waitForCleanup()
		m.requireOneKey("us-south")
	})
}

// TestClaim_deletionInDoubtKeepsOthersAway has a deletion fail that takes effect late: what
// is written until then would be lost.
func TestClaim_deletionInDoubtKeepsOthersAway(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.rotate("us-south")
		synctest.Wait()
		time.Sleep(3 * time.Minute)
		m.storage.lateDeletions.Store(int64(20 * time.Second))
		status, text := m.failure(logical.DeleteOperation, "config/us-south", nil)
		m.storage.lateDeletions.Store(0)
		if status != http.StatusInternalServerError {
			t.Errorf("responded %d %s", status, text)
		}
		time.Sleep(time.Second)
		status, text = m.failure(logical.UpdateOperation, "config/us-south", m.configData(map[string]any{"api_key": m.newKey()}))
		if status != http.StatusConflict || !strings.Contains(text, "is being deleted") {
			t.Errorf("responded %d %s", status, text)
		}
		m.waitForCleanup()
		if m.storedConfigOf("us-south") != nil {
			t.Error("the config is still there")
		}
		if left := m.managedLiveKeys(); len(left) != 0 {
			t.Errorf("%d keys are left at IAM", len(left))
		}
		m.requireNothingPending()
		m.writeConfig("us-south", map[string]any{"api_key": m.newKey()})
	})
}

// TestClaim_deletionInDoubtMayBeRepeated asks again at once.
func TestClaim_deletionInDoubtMayBeRepeated(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.storage.failNth(2)
		m.failure(logical.DeleteOperation, "config/us-south", nil)
		m.must(logical.DeleteOperation, "config/us-south", nil)
		if m.storedConfigOf("us-south") != nil {
			t.Error("the config is still there")
		}
	})
}
