// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestLogin_insistsOnItsProtocol(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		change func(*http.Request)
	}{
		"another method":          {405, func(r *http.Request) { r.Method = http.MethodGet }},
		"no Accept":               {415, func(r *http.Request) { r.Header.Del("Accept") }},
		"another content type":    {415, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }},
		"a body":                  {400, func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) }},
		"no key":                  {400, func(r *http.Request) { r.URL.RawQuery = "" }},
		"a key that is not known": {401, func(r *http.Request) { r.URL.RawQuery = "apikey=x" }},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exchange(newSim(t), c.change).Code; got != c.status {
				t.Fatalf("status is %d, want %d", got, c.status)
			}
		})
	}
}
