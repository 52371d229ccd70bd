// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlatform_insistsOnItsProtocol(t *testing.T) {
	s := newTokenSim(t)
	body := func(text string) func(*http.Request) {
		return func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(text)) }
	}
	for name, c := range map[string]struct {
		status int
		change func(*http.Request)
	}{
		"no Accept":             {415, func(r *http.Request) { r.Header.Del("Accept") }},
		"a form":                {415, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }},
		"no JSON":               {400, body("grant_type=api_key")},
		"another grant type":    {400, body(`{"grant_type":"password","api_key":"` + testKey + `"}`)},
		"no key":                {400, body(`{"grant_type":"api_key"}`)},
		"a key in the URL":      {400, func(r *http.Request) { r.URL.RawQuery = "api_key=" + testKey }},
		"no client":             {401, body(`{"grant_type":"api_key","api_key":"` + testKey + `"}`)},
		"another client":        {401, body(`{"grant_type":"api_key","api_key":"` + testKey + `","client_id":"x","client_secret":"` + testClientSecret + `"}`)},
		"another client secret": {401, body(`{"grant_type":"api_key","api_key":"` + testKey + `","client_id":"` + testClientID + `","client_secret":"x"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			w := exchangeAt(s, "platform", testKey, c.change)
			if w.Code != c.status {
				t.Fatalf("status is %d, want %d", w.Code, c.status)
			}
			if c.status == http.StatusUnsupportedMediaType {
				return
			}
			answered := decodeBody(t, w)
			texts, _ := answered["errors"].([]any)
			if answered["status"] != float64(c.status) || len(texts) != 1 {
				t.Fatalf("the error is %v", answered)
			}
		})
	}
}

// TestPlatform_singleUseKeyIsUsedUp: an exchange that is refused for another reason
// leaves the key in place.
func TestPlatform_singleUseKeyIsUsedUp(t *testing.T) {
	s := newTokenSim(t)
	s.AddLimitedKey("once", KeyOptions{SingleUse: true})
	exchangeAt(s, "platform", "once", func(r *http.Request) { r.Header.Del("Accept") })
	for _, want := range []int{200, 401} {
		if got := exchangeAt(s, "platform", "once", nil).Code; got != want {
			t.Fatalf("status is %d, want %d", got, want)
		}
	}
}

func TestPlatform_expiringKeyIsAcceptedUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		s.AddLimitedKey("brief", KeyOptions{Life: 5 * time.Minute})
		time.Sleep(5*time.Minute - time.Nanosecond)
		if got := exchangeAt(s, "platform", "brief", nil).Code; got != http.StatusOK {
			t.Fatalf("just before its end: status is %d", got)
		}
		time.Sleep(time.Nanosecond)
		if got := exchangeAt(s, "platform", "brief", nil).Code; got != http.StatusUnauthorized {
			t.Fatalf("at its end: status is %d", got)
		}
	})
}
