// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// TestYoungKey_refusedByLaggingPartsFailsNoRead reads with cache=false after a rotation, while
// every second part of IBM does not know the new key yet.
func TestYoungKey_refusedByLaggingPartsFailsNoRead(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.must(logical.PatchOperation, "config/us-south", map[string]any{"cache": false})
		m.sim.SetLag(apicsim.Lag{Tokens: 30 * time.Second, Every: 2})
		m.rotate("us-south")
		for range 60 {
			m.readToken("us-south")
			time.Sleep(time.Second)
		}
	})
}

// TestYoungKey_wait is what is done about a refusal.
func TestYoungKey_wait(t *testing.T) {
	refused := &upstream.Error{Outcome: upstream.Refused}
	unavailable := &upstream.Error{Outcome: upstream.Unavailable}
	always := func() bool { return true }
	for name, c := range map[string]struct {
		age, ctx time.Duration
		inUse    func() bool
		err      error
		accepted time.Duration
		// takes is how long the caller waits, and calls how often the service is asked.
		takes time.Duration
		calls int
		fails bool
	}{
		"of a young key is waited out":            {inUse: always, err: refused, accepted: 5 * time.Second, takes: 6 * time.Second, calls: 4},
		"that lasts is believed in the end":       {inUse: always, err: refused, accepted: time.Hour, takes: 40 * time.Second, calls: 21, fails: true},
		"of an old key is believed":               {age: 3 * time.Minute, inUse: always, err: refused, accepted: time.Hour, calls: 1, fails: true},
		"of a key by a clock ahead is believed":   {age: -3 * time.Minute, inUse: always, err: refused, accepted: time.Hour, calls: 1, fails: true},
		"of a key that is only tried is believed": {inUse: func() bool { return false }, err: refused, accepted: time.Hour, calls: 1, fails: true},
		"is not what an outage is":                {inUse: always, err: unavailable, accepted: time.Hour, calls: 1, fails: true},
		"ends with its caller":                    {ctx: 5 * time.Second, inUse: always, err: refused, accepted: time.Hour, takes: 5 * time.Second, calls: 3, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, calls := time.Now(), 0
				exchange := retryRefusals(func(context.Context) (*tokenservice.Token, error) {
					calls++
					if time.Since(began) < c.accepted {
						return nil, c.err
					}
					return &tokenservice.Token{}, nil
				}, began.Add(-c.age), c.inUse)
				ctx := context.Background()
				if c.ctx > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.ctx)
					defer cancel()
				}
				_, err := exchange(ctx)
				if took := time.Since(began); took != c.takes || calls != c.calls {
					t.Errorf("it took %s and %d calls", took, calls)
				}
				if c.fails != (err != nil) || c.fails && !errors.Is(err, c.err) {
					t.Errorf("the error is %v", err)
				}
			})
		})
	}
}
