// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestScrub(t *testing.T) {
	key := apicsim.NewKeyValue()
	for text, want := range map[string]string{
		"GET apic/token/soak-0001: 502 the service answers 503": "GET apic/token/soak-0001: 502 the service answers 503",
		"POST https://127.0.0.1:1/apikey?apikey=" + key + " x":  "POST https://127.0.0.1:1/apikey?apikey=[scrubbed] x",
		"token eyJhbGciOi.eyJqdGki.c2ln, hvs.short":             "token [scrubbed], [scrubbed]",
	} {
		if got := scrub(text); got != want {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

func TestFailures_write(t *testing.T) {
	var f failures
	f.add("read", errors.New("refused"))
	f.add("read", errors.New("refused"))
	for i := range 2 * keptFailures {
		f.add("patch", fmt.Errorf("failure %d", i))
	}
	var out strings.Builder
	f.write(&out)
	if lines := strings.Count(out.String(), "\n"); lines != keptFailures || f.total != 2+2*keptFailures {
		t.Errorf("%d failures are told in %d lines", f.total, lines)
	}
	if first, _, _ := strings.Cut(out.String(), "\n"); first != "FAILED 2 times: read: refused" {
		t.Errorf("the first line is %q", first)
	}
}
