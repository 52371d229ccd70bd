// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// TestLoad_run has the fifth request fail.
func TestLoad_run(t *testing.T) {
	for name, c := range map[string]struct {
		load             load
		requests, failed int
		ended            string
	}{
		"bounded before it":   {load{requests: 4}, 4, 0, "<nil>"},
		"ended by it":         {load{requests: 20}, 0, 0, "a request failed: 503 Service Unavailable a reason"},
		"going on after it":   {load{requests: 20, mayFail: true}, 20, 1, "<nil>"},
		"until a condition":   {load{until: func() bool { return true }}, 0, 0, "<nil>"},
		"judged to have none": {load{requests: 20, judge: func(r *vegeta.Result) { r.Error = "" }}, 20, 0, "<nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			status := eachOf(func(i int) int { return map[bool]int{false: 200, true: 503}[i == 4] })
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status())
				_, _ = w.Write([]byte("a reason"))
			}))
			defer service.Close()
			c.load.workers, c.load.next = 2, func() vegeta.Target { return vegeta.Target{Method: http.MethodGet, URL: service.URL} }
			var taken sample
			ended := fmt.Sprint(attempt(func() { taken = c.load.run(t.Context(), service.Client()) }))
			if ended != c.ended || int(taken.Requests) != c.requests || taken.failed != c.failed {
				t.Errorf("%d requests, %d failed, ended by %q", taken.Requests, taken.failed, ended)
			}
		})
	}
}
