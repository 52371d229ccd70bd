// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// site is onGround or onPlatform.
type site func(t *testing.T, retries int, test func(*testing.T, *ground))

// faultCase is what an issuer may do wrong, and what comes of it. An empty reason stands
// for success.
type faultCase struct {
	fault   apicsim.KeyFault
	calls   []apicsim.KeyCall
	outcome upstream.Outcome
	unknown bool
	reason  string
}

func status(status int) apicsim.KeyFault {
	return apicsim.KeyFault{Kind: apicsim.KindStatus, Status: status}
}

// answering is a 200 with this body, in which {key} stands for what apicsim.KeyFault says.
func answering(body string) apicsim.KeyFault {
	return apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 200, Body: body}
}

// Bodies that are no API key's.
const (
	html       = "<html><title>Gateway</title>{key}</html>"
	anError    = `{"errorCode":"BXNIM0415E","status":401,"message":["{key}"],"errors":["{key}"]}`
	idNoString = `{"id":{"value":"{key}"}}`
	idIsSecret = `{"id":"{key}"}`
)

func kind(kind apicsim.FaultKind) apicsim.KeyFault { return apicsim.KeyFault{Kind: kind} }

// faultsOnTheWay are those that are told the same of every call of every issuer.
func faultsOnTheWay(calls []apicsim.KeyCall, urlField string) []faultCase {
	huge := `{"id":"` + strings.Repeat("x", 200<<10) + `"}`
	return []faultCase{
		{kind(apicsim.KindReset), calls, upstream.Unavailable, unknown, "broke the connection off"},
		{kind(apicsim.KindResetMidBody), calls, upstream.Unavailable, unknown, "broke the connection off"},
		{kind(apicsim.KindHang), calls, upstream.Unavailable, unknown, "did not answer in time"},
		{kind(apicsim.KindTrickle), calls, upstream.Unavailable, unknown, "did not answer in time"},
		{kind(apicsim.KindEndlessBody), calls, upstream.Unavailable, unknown, "more than 64 KiB"},
		{answering(huge), calls, upstream.Unavailable, unknown, "more than 64 KiB"},
		{kind(apicsim.KindRedirect), calls, upstream.Unavailable, known, "redirected to another address on the same host (HTTP 307)"},
		{apicsim.KeyFault{Kind: apicsim.KindRedirect, RedirectTo: "https://elsewhere.example/"}, calls, upstream.Unavailable, known, "set " + urlField + " to the final address"},
		{status(500), calls, upstream.Unavailable, unknown, "failed with HTTP 500"},
		{status(503), calls, upstream.Unavailable, unknown, "failed with HTTP 503"},
		{status(429), calls, upstream.Unavailable, known, "asks to be called less often"},
		{apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 200, ContentEncoding: "gzip", Body: "this is not compressed, {key}"}, calls, upstream.Unavailable, unknown, "compression is broken"},
	}
}

// runFaults has faults before a call's effect and after it, which a client can't tell
// apart.
func runFaults(t *testing.T, on site, calls []apicsim.KeyCall, cases []faultCase) {
	for _, call := range calls {
		t.Run(string(call), func(t *testing.T) {
			t.Parallel()
			for _, c := range cases {
				for _, after := range []bool{false, true} {
					if slices.Contains(c.calls, call) {
						c.fault.Call, c.fault.After = call, after
						t.Run(fmt.Sprintf("%s %d%s%.20s after %t", c.fault.Kind, c.fault.Status, c.fault.RedirectTo, c.fault.Body, after), func(t *testing.T) { c.run(t, on) })
					}
				}
			}
		})
	}
}

func (c faultCase) run(t *testing.T, on site) {
	on(t, 0, func(t *testing.T, g *ground) {
		g.sim.InjectKeyFault(c.fault)
		err := g.calls()[c.fault.Call](t.Context())
		// The transport itself repeats a GET whose kept connection turns out to be dead.
		if got := g.sim.Counts().KeyCalls; got != 1 && (got != 2 || slices.Contains(changing, c.fault.Call)) {
			t.Errorf("%d requests were sent", got)
		}
		c.judge(t, g.service, err)
	})
}

func (c faultCase) judge(t *testing.T, service string, err error) {
	t.Helper()
	if c.reason == "" {
		if err != nil {
			t.Errorf("the error is %v", err)
		}
		return
	}
	failed := failure(t, err)
	if failed.Outcome != c.outcome || failed.OutcomeUnknown != c.unknown || !strings.Contains(err.Error(), c.reason) {
		t.Errorf("outcome %d, unknown %t: %s", failed.Outcome, failed.OutcomeUnknown, err)
	}
	if !strings.HasPrefix(err.Error(), service+" at 127.0.0.1: ") {
		t.Errorf("the service and host are not named: %s", err)
	}
	if errors.Is(err, rotation.ErrNoSuchKey) {
		t.Error("the key is taken for gone")
	}
}

// requireOnceAlone has the first attempt of each call fail.
func requireOnceAlone(t *testing.T, on site, calls []apicsim.KeyCall) {
	for _, call := range calls {
		for _, kind := range []apicsim.FaultKind{apicsim.KindReset, apicsim.KindStatus, apicsim.KindHang} {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s after %t", call, kind, after), func(t *testing.T) {
					on(t, 2, func(t *testing.T, g *ground) {
						g.sim.InjectKeyFault(apicsim.KeyFault{Call: call, After: after, Kind: kind, Times: 1})
						requireRepeated(t, g, call, after, g.calls()[call](t.Context()))
					})
				})
			}
		}
	}
}

// requireRepeated holds err against what is due after one attempt that failed.
func requireRepeated(t *testing.T, g *ground, call apicsim.KeyCall, after bool, err error) {
	t.Helper()
	want := 2
	if call == apicsim.CallCreate {
		want = 1
		if failed := failure(t, err); !failed.OutcomeUnknown || failed.Attempts != 1 {
			t.Errorf("%d attempts, unknown %t", failed.Attempts, failed.OutcomeUnknown)
		}
		if created := g.sim.Counts().KeysCreated == 1; created != after {
			t.Errorf("a key was created is %t", created)
		}
	} else if lost := call == apicsim.CallDelete && after; lost != errors.Is(err, rotation.ErrNoSuchKey) || !lost && err != nil {
		t.Errorf("the error is %v", err)
	}
	if got := g.sim.Counts().KeyCalls; got != want {
		t.Errorf("%d requests were sent", got)
	}
}
