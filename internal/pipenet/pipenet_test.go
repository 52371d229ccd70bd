// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package pipenet

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestLine_carriesRequestsUntilItIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := Serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }))
		defer network.Close()
		line, other := network.Line(), network.Line()
		get := func(l *Line) error {
			client := http.Client{Transport: &http.Transport{DialContext: l.Dial, DisableKeepAlives: true}}
			resp, err := client.Get("http://anywhere")
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		if err := get(line); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, line.Sever)
		if err := get(line); err == nil {
			t.Error("a request outlived its line")
		}
		if err := get(line); !errors.Is(err, ErrCut) {
			t.Errorf("the error is %v", err)
		}
		if err := get(other); err != nil {
			t.Errorf("another line: %v", err)
		}
	})
}
