// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// Two hundred clients that start cold cost one exchange.
func TestLoad_coldClientsCostOneExchange(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"verify": false})
	s.sim.Inject(apicsim.Fault{Latency: 500 * time.Millisecond})
	started := time.Now()
	readings := s.rush(200, 50, "us-south")
	took := time.Since(started)

	requireAllAnswered(t, readings)
	if got := s.sim.Counts().Exchanges; got != 1 {
		t.Errorf("%d reads cost %d exchanges", len(readings), got)
	}
	for _, r := range readings {
		if r.tokenID() != s.sim.Issued()[0].ID {
			t.Fatal("a reader got another token than the one that was issued")
		}
	}
	t.Logf("%d reads in %s, the slowest %s", len(readings), took.Round(time.Millisecond), slowest(readings).Round(time.Millisecond))
}

func TestLoad_coldClientsCostOneExchangePerConfig(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprint("region-", i))
		s.writeConfig(names[i], map[string]any{"verify": false})
	}
	s.sim.Inject(apicsim.Fault{Latency: 500 * time.Millisecond})
	requireAllAnswered(t, s.rush(200, 50, names...))
	if got := s.sim.Counts().Exchanges; got != len(names) {
		t.Errorf("%d configs cost %d exchanges", len(names), got)
	}
}

func TestLoad_clientThatLeavesEndsNoExchangeOfOthers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"verify": false})
	s.sim.Inject(apicsim.Fault{Latency: 2 * time.Second})
	hasty := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := s.client.Logical().ReadWithContext(ctx, "apic/token/us-south")
		hasty <- err
	}()
	s.eventually("the exchange has begun", func() bool { return s.sim.Counts().Exchanges == 1 })
	other := readOnce(s.client, "us-south")
	if err := <-hasty; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the hasty client got %v", err)
	}
	if other.err != nil || s.sim.Counts().Exchanges != 1 {
		t.Errorf("the other client got %v after %d exchanges", other.err, s.sim.Counts().Exchanges)
	}
}

// TestLoad_noTokenOfTheOldKeyAfterAWrite replaces the key again and again, with and
// without trying it first, while clients read.
func TestLoad_noTokenOfTheOldKeyAfterAWrite(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.Inject(apicsim.Fault{Latency: 20 * time.Millisecond})
	s.writeConfig("us-south", nil)
	stop := s.crowd(8, time.Millisecond, "us-south")
	generation := map[string]int{s.sim.KeyID(s.key): 0}
	answered := []time.Time{time.Now()}
	for i := 1; i <= 20; i++ {
		key := "canary-" + rand.Text()
		s.sim.AddKey(key)
		generation[s.sim.KeyID(key)] = i
		s.writeConfig("us-south", map[string]any{"api_key": key, "verify": i%2 == 0})
		answered = append(answered, time.Now())
		s.readToken("us-south")
	}
	readings := stop()
	requireAllAnswered(t, readings)

	issuedIn := map[string]int{}
	for _, token := range s.sim.Issued() {
		issuedIn[token.ID] = generation[token.KeyID]
	}
	seen := map[int]bool{}
	for _, r := range readings {
		current, known := issuedIn[r.tokenID()]
		if !known {
			t.Fatal("a token was answered that the service did not issue")
		}
		seen[current] = true
		if current+1 < len(answered) && r.began.After(answered[current+1]) {
			t.Fatalf("%s after the answer to a write a token of the key before it was answered", r.began.Sub(answered[current+1]))
		}
	}
	if len(seen) < len(answered)/2 {
		t.Errorf("the readers saw tokens of %d of %d keys", len(seen), len(answered))
	}
	t.Logf("%d reads through %d writes, tokens of %d keys", len(readings), len(answered)-1, len(seen))
}

func TestLoad_reloadKeepsReadersServed(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	stop := s.crowd(8, 2*time.Millisecond, "us-south")
	var reloaded time.Time
	for range 3 {
		s.readOften("us-south")
		before := s.sim.Counts().Issued
		_, err := s.client.Sys().ReloadPlugin(&api.ReloadPluginInput{Plugin: pluginName})
		s.check(err)
		reloaded = time.Now()
		// What was in memory is gone, and has been read from storage again.
		s.eventually("the reloaded plugin has exchanged the key", func() bool { return s.sim.Counts().Issued > before })
	}
	s.readOften("us-south")
	readings := stop()
	for _, r := range failed(readings) {
		if r.began.After(reloaded) {
			t.Errorf("a read failed %s after the last reload: %v", r.began.Sub(reloaded), r.err)
		}
	}
	t.Logf("%d reads through three reloads, %d failed, the slowest took %s", len(readings), len(failed(readings)), slowest(readings).Round(time.Millisecond))
}
