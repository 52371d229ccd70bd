// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	known   = false
	unknown = true
)

var (
	allCalls  = []apicsim.KeyCall{apicsim.CallDetails, apicsim.CallCreate, apicsim.CallList, apicsim.CallGet, apicsim.CallDisable, apicsim.CallDelete}
	changing  = []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallDisable, apicsim.CallDelete}
	answered  = []apicsim.KeyCall{apicsim.CallDetails, apicsim.CallCreate, apicsim.CallList, apicsim.CallGet}
	described = []apicsim.KeyCall{apicsim.CallDetails, apicsim.CallCreate, apicsim.CallGet}
	reading   = []apicsim.KeyCall{apicsim.CallDetails, apicsim.CallGet}
	own       = []apicsim.KeyCall{apicsim.CallDetails}
	creation  = []apicsim.KeyCall{apicsim.CallCreate}
	list      = []apicsim.KeyCall{apicsim.CallList}
	// ofAnID are the calls whose answer's status tells all, and get.
	ofAnID  = []apicsim.KeyCall{apicsim.CallGet, apicsim.CallDisable, apicsim.CallDelete}
	byState = []apicsim.KeyCall{apicsim.CallDisable, apicsim.CallDelete}
)

func faultCases() []faultCase {
	return append(faultsOnTheWay(allCalls, "iam_url"), []faultCase{
		{status(401), allCalls, upstream.Refused, known, "does not let the key's identity"},
		{status(403), allCalls, upstream.Refused, known, "User API key creator on the IAM Identity Service"},
		{status(415), allCalls, upstream.Refused, known, "check iam_url"},
		{status(404), own, upstream.Refused, known, "does not know the API key (HTTP 404)"},
		{status(404), creation, upstream.Refused, known, "has no such address or identity (HTTP 404)"},
		{status(404), list, upstream.Refused, known, "has no such address or identity (HTTP 404)"},
		// These are not IAM's own words, so that the key may be there.
		{status(404), ofAnID, upstream.Refused, known, "has no such address or identity (HTTP 404)"},
		{status(400), byState, upstream.Refused, known, "a locked key can be neither disabled nor deleted"},
		{status(409), byState, upstream.Refused, known, "a locked key can be neither disabled nor deleted"},
		{status(400), creation, upstream.Refused, known, "20 API keys at most"},
		{status(409), creation, upstream.Refused, known, "20 API keys at most"},
		{status(422), creation, upstream.Refused, known, "20 API keys at most"},
		{answering(html), answered, upstream.Unavailable, unknown, "not JSON"},
		{answering(""), answered, upstream.Unavailable, unknown, "not JSON"},
		{answering(`{"message":"welcome {key}"}`), answered, upstream.Unavailable, unknown, "answered "},
		{answering(anError), answered, upstream.Unavailable, unknown, "answered "},
		{answering(idNoString), described, upstream.Unavailable, unknown, "another shape than an API key's"},
		{answering(idNoString), list, upstream.Unavailable, unknown, "without a list"},
		{answering(idIsSecret), reading, upstream.Unavailable, unknown, "can't be one"},
		{answering("{\"id\":\"ey\xff\xfe.\xc3\x28.x\"}"), answered, upstream.Unavailable, unknown, "answered "},
		{answering(html), byState, 0, known, ""},
		{answering(anError), byState, 0, known, ""},
		{kind(apicsim.KindGzip), answered, 0, known, ""},
	}...)
}

func TestIAMSession_everyFaultOfEveryCall(t *testing.T) {
	runFaults(t, onGround, allCalls, faultCases())
}

// TestIAMSession_onlyACreationIsSentOnce: any other call is repeated if its outcome is
// unknown.
func TestIAMSession_onlyACreationIsSentOnce(t *testing.T) {
	requireOnceAlone(t, onGround, allCalls)
}

func TestIAMCreate_notSentHasNoEffect(t *testing.T) {
	onGround(t, 1, func(t *testing.T, g *ground) {
		g.line.Sever()
		// A kept connection that turns out to be dead leaves open what was sent on it.
		_, _ = g.session.Details(t.Context())
		_, _, err := g.session.Create(t.Context(), g.newKey("successor"))
		if failed := failure(t, err); failed.OutcomeUnknown || failed.Attempts != 2 {
			t.Fatalf("%d attempts, unknown %t: %s", failed.Attempts, failed.OutcomeUnknown, err)
		}
	})
}

func TestIAMCreate_repeatedAfterA429(t *testing.T) {
	onGround(t, 2, func(t *testing.T, g *ground) {
		g.sim.InjectKeyFault(apicsim.KeyFault{Call: apicsim.CallCreate, Kind: apicsim.KindStatus, Status: 429, RetryAfter: "3", Times: 2})
		g.create(t, "successor")
		if got := g.sim.Counts(); got.KeyCalls != 3 || got.KeysCreated != 1 {
			t.Fatalf("counts are %+v", got)
		}
	})
}

func TestIAMSession_refusalsSayWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*ground)
		call    apicsim.KeyCall
		code    string
		says    []string
	}{
		"a locked key to delete": {
			func(g *ground) { g.sim.LockKey(testKey) }, apicsim.CallDelete, "conflict",
			[]string{"refused to delete the API key (HTTP 409, conflict)", "unlock it in IBM Cloud", "IBM's support finds the request as "},
		},
		"a locked key to disable": {
			func(g *ground) { g.sim.LockKey(testKey) }, apicsim.CallDisable, "conflict",
			[]string{"refused to disable the API key (HTTP 409, conflict)", "unlock it in IBM Cloud"},
		},
		"too many keys": {
			func(g *ground) {
				for n := range 19 {
					g.sim.AddKey(fmt.Sprint("key-", n))
				}
			}, apicsim.CallCreate, "BXNIM0151E",
			[]string{"refused to create an API key (HTTP 422, BXNIM0151E)", "delete those that nobody uses"},
		},
		"a key that was deleted meanwhile": {
			func(g *ground) { g.sim.RevokeKey(testKey) }, apicsim.CallDetails, "BXNIM0102E",
			[]string{"does not know the API key (HTTP 404, BXNIM0102E)", "write the config again with api_key"},
		},
		"another identity's keys": {
			func(g *ground) { g.own.Identity = "IBMid-2" }, apicsim.CallCreate, "forbidden",
			[]string{"does not let the key's identity create an API key (HTTP 403, forbidden)", "User API key creator", "Operator"},
		},
		"a list of another identity's": {
			func(g *ground) { g.own.Identity = "IBMid-2" }, apicsim.CallList, "forbidden",
			[]string{"does not let the key's identity list its API keys (HTTP 403, forbidden)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			onGround(t, 2, func(t *testing.T, g *ground) {
				c.prepare(g)
				requireRefusal(t, g.calls()[c.call](t.Context()), c.code, c.says)
			})
		})
	}
}

func requireRefusal(t *testing.T, err error, code string, says []string) {
	t.Helper()
	failed := failure(t, err)
	if failed.Outcome != upstream.Refused || failed.Code != code || failed.Attempts != 1 || failed.OutcomeUnknown {
		t.Errorf("the error is %+v", failed)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %s", text, err)
		}
	}
}

func TestIAMSession_errorsNameTheRequest(t *testing.T) {
	for _, call := range allCalls {
		for _, status := range []int{403, 500} {
			t.Run(fmt.Sprint(call, " ", status), func(t *testing.T) {
				onGround(t, 0, func(t *testing.T, g *ground) {
					fault := apicsim.KeyFault{Call: call, Kind: apicsim.KindStatus, Status: status, Body: "{}"}
					g.sim.InjectKeyFault(fault)
					err := g.calls()[call](t.Context())
					if failure(t, err).RequestID == "" || !strings.Contains(err.Error(), "; IBM's support finds the request as ") {
						t.Errorf("the error is %s", err)
					}
					fault.Body = "" // Then it names the request after the key or the bearer.
					g.sim.InjectKeyFault(fault)
					if failure(t, g.calls()[call](t.Context())).RequestID != "" {
						t.Error("the request is named after a secret")
					}
				})
			})
		}
	}
}
