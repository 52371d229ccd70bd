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

var (
	platformCalls = []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallList, apicsim.CallGet, apicsim.CallDelete}
	whole         = []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallGet}
	get           = []apicsim.KeyCall{apicsim.CallGet}
	deletion      = []apicsim.KeyCall{apicsim.CallDelete}
	ofOneKey      = []apicsim.KeyCall{apicsim.CallGet, apicsim.CallDelete}
	ofAllKeys     = []apicsim.KeyCall{apicsim.CallCreate, apicsim.CallList}
)

func platformFaultCases() []faultCase {
	return append(faultsOnTheWay(platformCalls, "token_url"), []faultCase{
		{status(401), platformCalls, upstream.Refused, known, "does not accept the token (HTTP 401)"},
		{status(403), platformCalls, upstream.Refused, known, "does not let the token's user "},
		{status(403), platformCalls, upstream.Refused, known, "users of an OIDC user registry"},
		{status(404), ofAllKeys, upstream.Refused, known, "has no API for API keys (HTTP 404)"},
		{status(404), creation, upstream.Refused, known, "create an API key by hand and write the config again with api_key"},
		// These are not the platform's own words, so that the key may be there.
		{status(404), ofOneKey, upstream.Refused, known, "check region and token_url"},
		{status(400), creation, upstream.Refused, known, "Settings, Onboarding: API Key timeout, Multiple use of apikey"},
		{status(409), creation, upstream.Refused, known, "refused to create an API key (HTTP 409)"},
		{status(422), creation, upstream.Refused, known, "refused to create an API key (HTTP 422)"},
		{status(409), deletion, upstream.Refused, known, "delete it by hand"},
		{status(415), platformCalls, upstream.Refused, known, "check region and token_url"},
		{answering(html), whole, upstream.Unavailable, unknown, "not JSON"},
		{answering(html), list, upstream.Unavailable, unknown, "not JSON"},
		{answering(""), whole, upstream.Unavailable, unknown, "not JSON"},
		{answering(anError), whole, upstream.Unavailable, unknown, "answered "},
		{answering(anError), list, upstream.Unavailable, unknown, "answered "},
		{answering(idNoString), whole, upstream.Unavailable, unknown, "another shape than an API key's"},
		{answering(idNoString), list, upstream.Unavailable, unknown, "without a list"},
		{answering(idIsSecret), get, upstream.Unavailable, unknown, "can't be one"},
		{answering(html), deletion, 0, known, ""},
		{kind(apicsim.KindGzip), whole, 0, known, ""},
	}...)
}

func TestPlatformSession_everyFaultOfEveryCall(t *testing.T) {
	runFaults(t, onPlatform, platformCalls, platformFaultCases())
}

func TestPlatformSession_onlyACreationIsSentOnce(t *testing.T) {
	requireOnceAlone(t, onPlatform, platformCalls)
}

func TestPlatformSession_itsOwnRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*testing.T, *ground)
		call    apicsim.KeyCall
		says    []string
	}{
		"API keys can't be created": {
			func(_ *testing.T, g *ground) { g.sim.SetPlatformKeys(apicsim.PlatformKeys{Refuse: 403}) }, apicsim.CallCreate,
			[]string{"does not let the token's user create an API key (HTTP 403)", "ask an administrator of API Connect", "by hand"},
		},
		"no API for keys": {
			func(_ *testing.T, g *ground) { g.sim.SetPlatformKeys(apicsim.PlatformKeys{Refuse: 404}) }, apicsim.CallCreate,
			[]string{"has no API for API keys (HTTP 404)", "check region and token_url"},
		},
		"a name that is taken": {
			func(t *testing.T, g *ground) { g.create(t, "successor") }, apicsim.CallCreate,
			[]string{"refused to create an API key (HTTP 409)", "Cloud Manager"},
		},
		"another status in the body": {
			func(_ *testing.T, g *ground) {
				g.sim.InjectKeyFault(apicsim.KeyFault{Kind: apicsim.KindStatus, Status: 400, Body: `{"status":422,"errors":["` + testKey + `"]}`})
			}, apicsim.CallCreate,
			[]string{"refused to create an API key (HTTP 400, status 422)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			onPlatform(t, 2, func(t *testing.T, g *ground) {
				c.prepare(t, g)
				err := g.calls()[c.call](t.Context())
				requireRefusal(t, err, failure(t, err).Code, c.says)
			})
		})
	}
}

func TestPlatformSession_aTokenAtItsEndIsRefused(t *testing.T) {
	for _, call := range platformCalls {
		t.Run(fmt.Sprint(call), func(t *testing.T) {
			onPlatform(t, 2, func(t *testing.T, g *ground) {
				g.sim.SetClockSkew(2 * tokenLife)
				err := g.calls()[call](t.Context())
				if failed := failure(t, err); failed.Status != 401 || failed.Outcome != upstream.Refused || !strings.Contains(err.Error(), "does not accept the token") {
					t.Errorf("the error is %v", err)
				}
			})
		})
	}
}
