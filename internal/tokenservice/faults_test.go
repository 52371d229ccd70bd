// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// upstreamFault is one thing that a service may do wrong, and what comes of it.
type upstreamFault struct {
	// what completes "a service that ...".
	what  string
	fault apicsim.Fault
	// arrange, if set, takes the place of the fault. The exchange is its own.
	arrange func(*testing.T, *exchange)
	// waits says that the exchange takes until its timeout, which passes in fake time.
	waits   bool
	outcome upstream.Outcome
	// reason is in the error, and empty where a right token is issued all the same.
	reason string
	// only names the services that it is for, if not all.
	only []tokenservice.Kind
}

func status(code int) apicsim.Fault {
	return apicsim.Fault{Kind: apicsim.KindStatus, Status: code}
}

func statusWith(code int, body string) apicsim.Fault {
	return apicsim.Fault{Kind: apicsim.KindStatus, Status: code, Body: body}
}

// stating is a 200 with a token that does not say when it ends, and this JSON for
// expires_in.
func stating(expiresIn string) apicsim.Fault {
	return apicsim.Answering(`{"{field}":"` + apicsim.Unsigned(`{"jti":"an-id"}`) + `","token_type":"Bearer","expires_in":` + expiresIn + `}`)
}

func kind(k apicsim.FaultKind) apicsim.Fault { return apicsim.Fault{Kind: k} }

// upstreamFaults is the list of what a service may do wrong.
func upstreamFaults() []upstreamFault {
	return slices.Concat(refusals(), failures(), brokenConnections(), brokenAnswers(), brokenTokens(), brokenGrants())
}

func refusals() []upstreamFault {
	const refused = upstream.Refused
	const html = "<html><title>400 Bad Request</title></html>"
	const unknownCodes = `{"errorCode":"BXNIM9999E","errorMessage":"no","status":499,"message":["no"],"errors":["no"]}`
	return []upstreamFault{
		{what: "does not know the key", arrange: func(_ *testing.T, x *exchange) { x.sim.RevokeKey(testKey) }, outcome: refused, reason: "the API key"},
		{what: "has the key disabled", arrange: func(_ *testing.T, x *exchange) { x.sim.DisableKey(testKey) }, outcome: refused, reason: "the API key"},
		{what: "has used the key up", arrange: useKeyUp, outcome: refused, reason: "worked before", only: []tokenservice.Kind{tokenservice.Platform}},
		{what: "answers HTTP 400 and echoes the key", fault: status(400), outcome: refused, reason: "(HTTP 400)"},
		{what: "answers HTTP 400 with a gateway's HTML", fault: statusWith(400, html), outcome: refused, reason: "(HTTP 400)"},
		{what: "answers HTTP 400 with a blank body", fault: statusWith(400, " "), outcome: refused, reason: "(HTTP 400)"},
		{what: "answers HTTP 400 with codes that nobody knows", fault: statusWith(400, unknownCodes), outcome: refused, reason: "(HTTP 400"},
		{what: "answers HTTP 401 and echoes the key", fault: status(401), outcome: refused, reason: "(HTTP 401)"},
		{what: "answers HTTP 403 and echoes the key", fault: status(403), outcome: refused, reason: "(HTTP 403)"},
		{what: "answers HTTP 404 and echoes the key", fault: status(404), outcome: refused, reason: "has no such address (HTTP 404)"},
		{what: "answers HTTP 415 and echoes the key", fault: status(415), outcome: refused, reason: "refused the request (HTTP 415)"},
	}
}

func useKeyUp(t *testing.T, x *exchange) {
	t.Helper()
	x.sim.AddLimitedKey(testKey, apicsim.KeyOptions{SingleUse: true})
	if _, err := x.service.Exchange(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func failures() []upstreamFault {
	return []upstreamFault{
		{what: "answers HTTP 408", fault: status(408), reason: "failed with HTTP 408"},
		{what: "answers HTTP 429", fault: status(429), reason: "asks to be called less often (HTTP 429)"},
		{what: "answers HTTP 500 and echoes the key", fault: status(500), reason: "failed with HTTP 500"},
		{what: "answers HTTP 502 with a gateway's HTML", fault: statusWith(502, "<html><title>502 Bad Gateway</title></html>"), reason: "failed with HTTP 502"},
		{what: "answers HTTP 503 and echoes the key", fault: status(503), reason: "failed with HTTP 503"},
		{what: "redirects on its host, with the key in the address", fault: kind(apicsim.KindRedirect), reason: "redirected to another address on the same host (HTTP 307)"},
		{what: "redirects to another host, with the key in the address", fault: apicsim.Fault{Kind: apicsim.KindRedirect, RedirectTo: "https://elsewhere.example/token"}, reason: "redirected to another host (HTTP 307)"},
	}
}

func brokenConnections() []upstreamFault {
	return []upstreamFault{
		{what: "refuses the connection", arrange: func(t *testing.T, x *exchange) { check(t, x.server.Refuse()) }, reason: "refused the connection"},
		{what: "shows a certificate that nobody trusts", arrange: serveTLS, reason: "certificate that is not trusted"},
		{what: "speaks no TLS on a port where it should", arrange: expectTLS, reason: "does not speak TLS"},
		{what: "resets the connection", fault: kind(apicsim.KindReset), reason: "broke the connection off"},
		{what: "resets the connection in the middle of its answer", fault: kind(apicsim.KindResetMidBody), reason: "broke the connection off"},
		{what: "takes its time, and less than the timeout", fault: apicsim.Fault{Latency: 50 * time.Millisecond}},
		{what: "does not answer", fault: kind(apicsim.KindHang), waits: true, reason: "did not answer in time"},
		{what: "trickles a byte a second", fault: kind(apicsim.KindTrickle), waits: true, reason: "did not answer in time"},
		{what: "never ends its answer", fault: kind(apicsim.KindEndlessBody), reason: "more than 64 KiB"},
		{what: "compresses its answer", fault: kind(apicsim.KindGzip)},
		{what: "claims to compress its answer", fault: apicsim.Fault{Kind: apicsim.KindStatus, Status: 200, ContentEncoding: "gzip", Body: "this is not compressed, {key}"}, reason: "compression is broken"},
	}
}

// serveTLS has the service move to a server whose authority it does not know.
func serveTLS(t *testing.T, x *exchange) {
	t.Helper()
	server, err := apicsim.StartTLS(x.sim)
	check(t, err)
	t.Cleanup(server.Close)
	x.moveTo(t, server.URL())
}

func expectTLS(t *testing.T, x *exchange) {
	t.Helper()
	x.moveTo(t, strings.Replace(x.server.URL(), "http:", "https:", 1))
}

func brokenAnswers() []upstreamFault {
	return []upstreamFault{
		{what: "answers 200 with a gateway's HTML", fault: apicsim.Answering("<html><title>Gateway</title>{key}</html>"), reason: "not JSON"},
		{what: "answers 200 and nothing", fault: apicsim.Answering(""), reason: "not JSON"},
		{what: "answers 204", fault: status(204), reason: "not JSON"},
		{what: "answers 200 with the body of an error", fault: apicsim.Answering(`{"errorCode":"BXNIM0415E","status":401,"message":["{key}"],"errors":["{key}"]}`), reason: "without a token"},
		{what: "answers JSON without a token", fault: apicsim.Answering(`{"message":"welcome {key}"}`), reason: "without a token"},
		{what: "answers an empty token", fault: apicsim.Answering(`{"{field}":""}`), reason: "without a token"},
		{what: "answers null for the token", fault: apicsim.Answering(`{"{field}":null}`), reason: "without a token"},
		{what: "answers an object for the token", fault: apicsim.Answering(`{"{field}":{"value":"{key}"}}`), reason: "another shape"},
		{what: "answers a list", fault: apicsim.Answering(`[{"{field}":"{token}"}]`), reason: "another shape"},
		{what: "answers JSON nested 20,000 deep", fault: apicsim.Answering(`{"{field}":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`), reason: "answered"},
		{what: "answers two objects", fault: apicsim.Answering(`{"{field}":"{token}"}{"{field}":"{token}"}`), reason: "not JSON"},
		{what: "answers two tokens, both right", fault: apicsim.Answering(`{"{field}":"{token}","{field}":"{token}"}`)},
		{what: "answers two tokens, the first one no JWT", fault: apicsim.Answering(`{"{field}":"first","{field}":"{token}"}`)},
		{what: "answers two tokens, the last one no JWT", fault: apicsim.Answering(`{"{field}":"{token}","{field}":"last"}`), reason: "not a JWT"},
		{what: "answers a token that is not UTF-8", fault: apicsim.Answering("{\"{field}\":\"ey\xff\xfe.\xc3\x28.x\"}"), reason: "not a JWT"},
	}
}

func brokenTokens() []upstreamFault {
	const endless = "does not say when it expires"
	inAnHour := time.Now().Add(time.Hour).Unix()
	return []upstreamFault{
		{what: "returns the key as the token", fault: apicsim.Answering(`{"{field}":"{key}"}`), reason: "not a JWT"},
		{what: "issues a token with line ends in it", fault: apicsim.Answering(`{"{field}":"{token}\r\nX-Header: AAAA"}`), reason: "not a JWT"},
		{what: "issues a token with a line end behind", fault: apicsim.Answering(`{"{field}":"{token}\n"}`), reason: "not a JWT"},
		{what: "issues a token whose claims are no object", fault: apicsim.Issuing(`[]`), reason: "not a JWT"},
		{what: "issues a token without exp", fault: apicsim.Issuing(`{"jti":"an-id"}`), reason: endless},
		{what: "issues a token whose exp is null", fault: apicsim.Issuing(`{"exp":null}`), reason: endless},
		{what: "issues a token whose exp is in the past", fault: apicsim.Issuing(`{"exp":%d}`, inAnHour-3660), reason: "compare this host's clock"},
		{what: "issues a token whose exp is negative", fault: apicsim.Issuing(`{"exp":-1}`), reason: "compare this host's clock"},
		{what: "issues a token whose exp is a text", fault: apicsim.Issuing(`{"exp":"%d"}`, inAnHour), reason: "not a JWT"},
		{what: "issues a token whose exp has a fraction", fault: apicsim.Issuing(`{"exp":%d.5}`, inAnHour)},
		{what: "issues a token whose exp is in the year 9999", fault: apicsim.Issuing(`{"exp":253370764800}`), reason: "more than a year"},
		{what: "issues a token whose exp is 1e300", fault: apicsim.Issuing(`{"exp":1e300}`), reason: "answered a token"},
		{what: "issues a token of 60 KiB", fault: apicsim.Issuing(`{"exp":%d,"padding":%q}`, inAnHour, strings.Repeat("p", 45_000))},
		{what: "issues a token of 200 KiB", fault: apicsim.Issuing(`{"exp":%d,"padding":%q}`, inAnHour, strings.Repeat("p", 150_000)), reason: "more than 64 KiB"},
		{what: "issues a token without jti", fault: apicsim.Issuing(`{"exp":%d}`, inAnHour)},
		{what: "issues a token with the key for its jti", fault: apicsim.Issuing(`{"jti":%q,"exp":%d}`, testKey, inAnHour), reason: "holds the API key or the client secret"},
		{what: "issues a token with the key within a claim", fault: apicsim.Issuing(`{"sub":"apikey:%s","exp":%d}`, testKey, inAnHour), reason: "holds the API key or the client secret"},
		{what: "issues a token with part of the key in its jti", fault: apicsim.Issuing(`{"jti":%q,"exp":%d}`, testKey[3:12], inAnHour)},
		{what: "issues a token whose jti is not printable", fault: apicsim.Issuing(`{"jti":"line\nfeed","exp":%d}`, inAnHour)},
	}
}

// brokenGrants are for the services whose answers say more than the token.
func brokenGrants() []upstreamFault {
	const endless = "does not say when it expires"
	list := []upstreamFault{
		{what: "answers a token_type other than Bearer", fault: apicsim.Answering(`{"{field}":"{token}","token_type":"MAC"}`), reason: "another type than Bearer"},
		{what: "answers no token_type", fault: apicsim.Answering(`{"{field}":"{token}"}`)},
		{what: "answers a token_type that is no text", fault: apicsim.Answering(`{"{field}":"{token}","token_type":7}`), reason: "another shape"},
		{what: "issues a token without exp, and says 3600 in expires_in", fault: stating("3600")},
		{what: "the same, with a negative expires_in", fault: stating("-5"), reason: endless},
		{what: "the same, with 0", fault: stating("0"), reason: endless},
		{what: "the same, with null", fault: stating("null"), reason: endless},
		{what: "the same, with a text", fault: stating(`"3600"`), reason: endless},
		{what: "the same, with a fraction", fault: stating("3600.5"), reason: endless},
		{what: "the same, with 1e300", fault: stating("1e300"), reason: endless},
		{what: "the same, with more than 64 bits hold", fault: stating("99999999999999999999"), reason: endless},
		{what: "the same, with 32 years", fault: stating("999999999"), reason: "more than a year"},
		{what: "issues a token without exp, and an expiration in the past", fault: stating(`null,"expiration":1`), reason: "compare this host's clock"},
		{what: "issues a token without exp, and an expiration in the year 9999", fault: stating(`null,"expiration":253370764800`), reason: endless},
		{what: "issues a valid token, and says -5 in expires_in", fault: apicsim.Answering(`{"{field}":"{token}","expires_in":-5}`)},
	}
	for i := range list {
		list[i].only = []tokenservice.Kind{tokenservice.IAM, tokenservice.Platform}
	}
	return list
}

// TestExchange_everyFault sends a key to every service that
// does something wrong, and holds what a client saw against the report.
func TestExchange_everyFault(t *testing.T) {
	seen := newReport()
	for _, service := range tokenservice.Kinds() {
		shared := newExchangeOf(t, service, time.Second, 0)
		for _, h := range upstreamFaults() {
			if !h.isFor(service) {
				continue
			}
			t.Run(fmt.Sprintf("the %s service %s", service, h.what), func(t *testing.T) {
				hold := func(t *testing.T, x *exchange) {
					x.sim.Inject(h.fault)
					before := x.sim.Counts().Exchanges
					issued, err := x.service.Exchange(context.Background())
					if got := x.sim.Counts().Exchanges - before; got > 1 || h.arrange == nil && got != 1 {
						t.Errorf("%d requests were sent", got)
					}
					seen.note(h.what, service, requireOutcome(t, x, h, issued, err))
				}
				if h.waits {
					inFakeTime(t, service, 0, hold)
					return
				}
				x := shared
				// Anew, so that no service remembers what its key was good for in another case.
				x.moveTo(t, x.server.URL())
				if h.arrange != nil {
					x = newExchangeOf(t, service, time.Second, 0)
					h.arrange(t, x)
				}
				hold(t, x)
			})
		}
	}
	seen.hold(t)
}

func (h upstreamFault) isFor(service tokenservice.Kind) bool {
	return len(h.only) == 0 || slices.Contains(h.only, service)
}

// requireOutcome returns what a client saw: a token, or the status that Vault
// answers and the error behind the service's name.
func requireOutcome(t *testing.T, x *exchange, h upstreamFault, token *tokenservice.Token, err error) string {
	t.Helper()
	if h.reason == "" {
		requireRightToken(t, token, err)
		return "a token"
	}
	failed := failure(t, err)
	if failed.Outcome != h.outcome || !strings.Contains(err.Error(), h.reason) {
		t.Errorf("outcome %d: %s", failed.Outcome, err)
	}
	sentence, named := strings.CutPrefix(err.Error(), fmt.Sprintf("%s token service at %s: ", x.kind, x.host))
	if !named {
		t.Errorf("the service and host are not named: %s", err)
	}
	if failed.Outcome == upstream.Refused {
		return "400: " + sentence
	}
	return "502: " + sentence
}

func requireRightToken(t *testing.T, token *tokenservice.Token, err error) {
	t.Helper()
	check(t, err)
	if token.Value == "" || token.ID == "" {
		t.Fatalf("token %q has no value or no ID", token.ID)
	}
	if left := time.Until(token.ExpiresAt); left < time.Minute || left > 2*time.Hour {
		t.Fatalf("the token lives for %s", left)
	}
	requireSilent(t, token.ID)
	if strings.Contains(token.ID, testKey[3:12]) {
		t.Fatal("the token's id gives part of the key away")
	}
}

// TestExchange_lastOfTwoTokensCounts holds what encoding/json does
// with a member that is there twice: what is looked at and what is handed out
// must be the same one.
func TestExchange_lastOfTwoTokensCounts(t *testing.T) {
	for _, service := range tokenservice.Kinds() {
		t.Run(string(service), func(t *testing.T) {
			x := newExchangeOf(t, service, 5*time.Second, 0)
			first, err := x.service.Exchange(context.Background())
			check(t, err)
			last, err := x.service.Exchange(context.Background())
			check(t, err)
			x.sim.Inject(apicsim.Answering(fmt.Sprintf(`{"{field}":%q,"{field}":%q}`, string(first.Value), string(last.Value))))
			got, err := x.service.Exchange(context.Background())
			check(t, err)
			if first.ID == last.ID || got.ID != last.ID || got.Value != last.Value {
				t.Fatal("the token is not the last one")
			}
		})
	}
}
