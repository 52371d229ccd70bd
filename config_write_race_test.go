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

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// TestConfigCreate_ofWhatExistsChangesNothing has the config come between Vault's
// existence check, which lets somebody with create alone in, and the handler.
func TestConfigCreate_ofWhatExistsChangesNothing(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	before := m.storedConfig("us-south")
	token := m.readToken("us-south")["token_id"]
	for _, data := range []map[string]any{m.configData(nil), {"max_retries": 7}, nil} {
		status, text := m.failure(logical.CreateOperation, "config/us-south", data)
		if status != http.StatusConflict || !strings.Contains(text, "needs the update capability") {
			t.Errorf("responded %d %s", status, text)
		}
	}
	if m.storedConfig("us-south") != before || m.readToken("us-south")["token_id"] != token {
		t.Error("the config was changed")
	}
}

// TestConfigUpdate_ofWhatIsGoneCreatesNothing has the config be deleted between the check,
// which lets somebody with update alone in, and the handler.
func TestConfigUpdate_ofWhatIsGoneCreatesNothing(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.must(logical.DeleteOperation, "config/us-south", nil)
	calls := m.sim.Counts().Exchanges
	status, text := m.failure(logical.UpdateOperation, "config/us-south", m.configData(nil))
	if status != http.StatusConflict || !strings.Contains(text, "needs the create capability") {
		t.Errorf("responded %d %s", status, text)
	}
	if m.storedConfig("us-south") != "" || m.sim.Counts().Exchanges != calls {
		t.Error("the config was tried or created")
	}
}

// TestConfigWrite_overtakenIsAConflict makes two writes at once. Both find the same
// config, or none, and are tried at the service before the first is stored.
func TestConfigWrite_overtakenIsAConflict(t *testing.T) {
	for op, says := range map[logical.Operation]string{
		logical.CreateOperation: "was created by another write meanwhile",
		logical.UpdateOperation: "was changed by another write meanwhile",
	} {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newRotationMount(t)
				if op == logical.UpdateOperation {
					m.writeConfig("us-south", nil)
				}
				m.sim.Inject(apicsim.Fault{Latency: time.Second})
				refused := m.writeTwice(op)
				if len(refused) != 1 || !strings.Contains(refused[0].Error(), says) {
					t.Fatalf("refused were %v", refused)
				}
				if coded, ok := refused[0].(logical.HTTPCodedError); !ok || coded.Code() != http.StatusConflict {
					t.Errorf("the error %T is no 409", refused[0])
				}
				m.readToken("us-south")
			})
		})
	}
}

// writeTwice writes us-south twice at once and returns the errors.
func (m *mount) writeTwice(op logical.Operation) (refused []error) {
	m.Helper()
	var (
		mu      sync.Mutex
		writers sync.WaitGroup
	)
	for range 2 {
		writers.Go(func() {
			_, err := m.backend.HandleRequest(context.Background(), &logical.Request{
				Operation: op, Path: "config/us-south", Data: m.configData(nil), Storage: m.storage,
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				refused = append(refused, err)
			}
		})
	}
	writers.Wait()
	return refused
}
