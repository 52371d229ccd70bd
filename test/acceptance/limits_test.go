// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// leave makes a request whose client disconnects once the service has been called, or
// was answered before that.
func (s *stack) leave(request func(ctx context.Context) error) {
	s.Helper()
	ctx, disconnect := context.WithCancel(s.Context())
	defer disconnect()
	before := s.sim.Counts().Exchanges
	answered := make(chan error, 1)
	go func() { answered <- request(ctx) }()
	s.eventually("the service is called, or the request is answered", func() bool {
		return s.sim.Counts().Exchanges > before || len(answered) > 0
	})
	disconnect()
	if err := <-answered; err == nil {
		s.Error("a client of a refused key was answered")
	}
}

// TestBackoff_holdsForClientsThatDisconnect has clients come and leave, who may do
// everything with tokens and configs and do not know the key.
func TestBackoff_holdsForClientsThatDisconnect(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	update := func(ctx context.Context) error {
		_, err := s.client.Logical().WriteWithContext(ctx, "apic/token/us-south", nil)
		return err
	}
	patch := func(ctx context.Context) error {
		_, err := s.client.Logical().JSONMergePatch(ctx, "apic/config/us-south", map[string]any{"verify": true})
		return err
	}
	for name, request := range map[string]func(context.Context) error{"updates": update, "patches": patch} {
		key := s.anotherKey()
		s.sim.RevokeKey(key)
		s.writeConfig("us-south", map[string]any{"api_key": key, "verify": false})
		s.sim.Inject(apicsim.Fault{Latency: 300 * time.Millisecond})
		before := s.sim.Counts()
		s.leave(request)
		s.eventually("the answer comes to nobody", func() bool { return s.sim.Counts().InFlight == 0 })
		if got := s.sim.Counts().Refused - before.Refused; got != 1 {
			t.Fatalf("%s: the exchange was cut off with its client: %d refusals", name, got)
		}
		began := time.Now()
		for range 19 {
			s.leave(request)
		}
		// More than one only if the machine is so slow that the first backoff ends.
		if got := s.sim.Counts().Exchanges - before.Exchanges; got != 1 && time.Since(began) < 5*time.Second {
			t.Errorf("20 %s sent the key %d times", name, got)
		}
	}
}

// TestExchanges_ofManyClientsAreEightAtATime has more clients want a dedicated token at
// once than are served at a time, beside one who reads the shared one.
func TestExchanges_ofManyClientsAreEightAtATime(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"verify": false})
	s.sim.Inject(apicsim.Fault{Latency: 200 * time.Millisecond})
	start := make(chan struct{})
	errs := make([]error, 300)
	var all sync.WaitGroup
	for i, client := range s.newReaders(len(errs)) {
		all.Go(func() {
			<-start
			errs[i] = updateOnce(client)
		})
	}
	close(start)
	s.eventually("seven are in flight", func() bool { return s.sim.Counts().InFlight >= 7 })
	shared := readOnce(s.client, "us-south")
	s.check(shared.err)
	all.Wait()

	served := 0
	for _, err := range errs {
		switch {
		case err == nil:
			served++
		case status(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "at most 8 exchanges run at a time for one config"):
			t.Errorf("answered %v", err)
		}
	}
	counts := s.sim.Counts()
	if counts.MostInFlight > 8 || counts.Exchanges != served+1 {
		t.Errorf("%d exchanges, %d at a time, served %d clients", counts.Exchanges, counts.MostInFlight, served)
	}
	t.Logf("%d of %d were served, %d exchanges at a time, and the shared token took %s", served, len(errs), counts.MostInFlight, shared.took.Round(time.Millisecond))
}

func updateOnce(client *api.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := client.Logical().WriteWithContext(ctx, "apic/token/us-south", nil)
	return err
}
