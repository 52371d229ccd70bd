// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"errors"
	"net/http/httptrace"
	"testing"
)

func TestCall_lastConnectionTellsWhetherSent(t *testing.T) {
	for _, c := range []struct {
		name   string
		events string
		unsent bool
	}{
		{"nothing is known", "", false},
		{"no connection was had", "?", true},
		{"a connection was had", "?!", false},
		{"another one was looked for, as nothing was written to the first", "?!?", true},
		{"and was had", "?!?!", false},
		{"a later attempt had none", "?!+?", true},
		{"a later attempt tells nothing", "?+", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent, ctx := begin(t.Context(), false)
			trace := httptrace.ContextClientTrace(ctx)
			for _, event := range c.events {
				switch event {
				case '?':
					trace.GetConn("")
				case '!':
					trace.GotConn(httptrace.GotConnInfo{})
				case '+':
					sent.attempt()
				}
			}
			if got := sent.mayHaveActed(nil, errors.New("any")); got == c.unsent {
				t.Fatalf("that it may have acted is %t", got)
			}
		})
	}
}
