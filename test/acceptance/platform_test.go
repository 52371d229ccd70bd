// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// explained is what an administrator has to know of a platform key that is
// refused after having worked.
func explained() []string {
	return []string{
		"refused the API key, which worked before (HTTP 401)", "expire after five minutes and can be used once",
		"an administrator changes that in Cloud Manager", "API Key timeout, Multiple use of apikey", "write the config again with a new api_key",
	}
}

// A key that can be used once is used for the token that all readers get.
func TestPlatform_singleUseKey(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.AddLimitedKey(s.key, apicsim.KeyOptions{SingleUse: true})
	s.check(s.writeService("platform", map[string]any{"max_retries": 2, "renew": false}))
	requireExchanges := func(want int) {
		t.Helper()
		if got := s.sim.Counts().Exchanges; got != want {
			t.Fatalf("the key was sent %d times, want %d", got, want)
		}
	}
	requireExchanges(1)
	requireItsToken := func(readings []reading) {
		t.Helper()
		requireAllAnswered(t, readings)
		for _, r := range readings {
			if r.tokenID() != s.sim.Issued()[0].ID {
				t.Fatal("a reader got another token than the one that the key was exchanged for")
			}
		}
	}
	requireItsToken(s.rush(20, 5, "platform"))
	requireExchanges(1)

	s.mustCLI("patch", "apic/config/platform", "refresh_before=10m")
	requireItsToken(s.rush(20, 5, "platform"))
	requireExchanges(1)

	s.mustCLI("patch", "apic/config/platform", "cache=false")
	s.requireError("a read that makes an exchange", s.tryRead("apic/token/platform"), http.StatusBadRequest, "API Key timeout, Multiple use of apikey")
}

// A key that was used up or has expired is explained, and its token is still shared.
func TestPlatform_usedUpOrExpiredKey(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]apicsim.KeyOptions{
		"a key that can be used once":   {SingleUse: true},
		"a key that lives five seconds": {Life: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			s.sim.AddLimitedKey(s.key, limits)
			s.check(s.writeService("platform", map[string]any{"renew": false}))
			first := s.readToken("platform").Data["token_id"]
			var refused error
			s.eventually("the key is refused", func() bool {
				refused = s.tryWrite("apic/token/platform", nil)
				return refused != nil
			})
			s.requireError("an exchange", refused, http.StatusBadRequest, explained()...)
			if got := s.readToken("platform").Data["token_id"]; got != first {
				t.Error("readers have lost the token that they share")
			}
		})
	}
}

// TestPlatform_exchangeInDoubtIsNotRepeated counts what reaches the service, which may
// have used the key up by then.
func TestPlatform_exchangeInDoubtIsNotRepeated(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for _, c := range []struct {
		name  string
		fault apicsim.Fault
		says  string
	}{
		{"a reset connection", apicsim.Fault{Kind: apicsim.KindReset}, "broke the connection off (1 attempt, "},
		{"an answer that broke off", apicsim.Fault{Kind: apicsim.KindResetMidBody}, "broke the connection off (1 attempt, "},
		{"no answer", apicsim.Fault{Kind: apicsim.KindHang}, "did not answer in time (1 attempt, "},
		{"a 500", apicsim.Fault{Kind: apicsim.KindStatus, Status: 500}, "failed with HTTP 500 (1 attempt, "},
		{"a gateway's 504", apicsim.Fault{Kind: apicsim.KindStatus, Status: 504}, "failed with HTTP 504 (1 attempt, "},
	} {
		s.sim.Inject(c.fault)
		for _, at := range []string{"a write", "an update"} {
			// Each has a key of its own, so that none backs off from another's failure.
			retrying := map[string]any{"api_key": s.anotherKey(), "max_retries": 5, "request_timeout": "1s", "verify": at == "a write", "renew": false}
			before := s.sim.Counts().Exchanges
			err := s.writeService("platform", retrying)
			if at == "an update" {
				s.check(err)
				err = s.tryWrite("apic/token/platform", nil)
			}
			s.requireError(c.name+" at "+at, err, http.StatusBadGateway, c.says)
			if got := s.sim.Counts().Exchanges - before; got != 1 {
				t.Errorf("%s at %s: the key was sent %d times", c.name, at, got)
			}
		}
	}
}

// Client credentials can change without the key, but are not sent elsewhere.
func TestPlatform_clientCredentials(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	write := func(data map[string]any) error {
		return s.tryWrite("apic/config/platform", data)
	}
	s.requireError("a create without them", write(map[string]any{
		"token_service": "platform", "api_key": s.key, "token_url": s.service.URL() + "/api/token",
	}), http.StatusBadRequest, "client_id and client_secret are required by the platform token service")
	s.requireNoConfig("platform")
	s.requireError("a file that is another", s.writeService("platform", map[string]any{"credentials": `{"apikey":"` + s.key + `"}`}),
		http.StatusBadRequest, "credentials is JSON without toolkit.client_id and toolkit.client_secret")
	s.check(s.writeService("platform", map[string]any{"renew": false}))

	s.requireError("another secret by itself", write(map[string]any{"client_secret": "another"}),
		http.StatusBadRequest, "client_secret is not the stored one", "name these fields again")
	tokenURL := s.service.URL() + "/api/token"
	s.check(write(map[string]any{"client_id": "another", "client_secret": "another", "token_service": "platform", "token_url": tokenURL}))
	s.requireError("wrong credentials", s.tryWrite("apic/token/platform", nil), http.StatusBadRequest, "refused the API key or the client credentials (HTTP 401)", "check client_id and client_secret")
	config := s.read("apic/config/platform")
	if _, there := config.Data["client_secret"]; there || config.Data["client_id"] != "another" {
		t.Errorf("the config has client_id %v, and a client_secret: %t", config.Data["client_id"], there)
	}

	file := fmt.Sprintf(`{"toolkit":{"client_id":%q,"client_secret":%q}}`, s.clientID, s.clientSecret)
	s.check(os.WriteFile(s.path("credentials.json"), []byte(file), 0o600))
	s.mustCLI("write", "apic/config/platform", "credentials=@credentials.json", "token_service=platform", "token_url="+tokenURL)
	works := func() bool { return s.tryWrite("apic/token/platform", nil) == nil }
	s.eventually("the backoff of the wrong credentials is over", works)
	s.mustCLI("patch", "apic/config/platform", "credentials=@credentials.json", "client_secret=another", "token_service=platform", "token_url="+tokenURL)
	s.requireError("a secret beside the file", s.tryWrite("apic/token/platform", nil), http.StatusBadRequest, "client credentials")
	s.mustCLI("patch", "apic/config/platform", "client_secret="+s.clientSecret, "token_service=platform", "token_url="+tokenURL)
	s.eventually("the backoff of the wrong secret is over", works)

	elsewhere := map[string]any{"token_url": s.service.URL() + "/elsewhere", "verify": false}
	s.requireError("another address without the key", write(elsewhere), http.StatusBadRequest, "api_key is required again")
	elsewhere["api_key"] = "made-up"
	s.requireError("another address without the secret", write(elsewhere), http.StatusBadRequest, "client_secret is required again")
	elsewhere["api_key"], elsewhere["credentials"] = s.key, file
	s.check(write(elsewhere))
}
