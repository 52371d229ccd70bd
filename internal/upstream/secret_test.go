// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"fmt"
	"strings"
	"testing"
)

const testSecret = Secret("0Kq3-canary-Zz9")

func TestASecretIsNotPrintedByAnyVerb(t *testing.T) {
	type holder struct{ Value Secret }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{testSecret, []Secret{testSecret}, holder{Value: testSecret}} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, "canary") || !strings.Contains(text, redacted) {
				t.Errorf("%s prints a secret in a %T", verb, value)
			}
		}
	}
}

func TestATextThatHoldsASecretIsTold(t *testing.T) {
	for _, c := range []struct {
		name    string
		text    string
		secrets []Secret
		want    bool
	}{
		{"the secret itself", string(testSecret), []Secret{testSecret}, true},
		{"the secret within", "code-" + string(testSecret), []Secret{"other", testSecret}, true},
		{"another text", "code", []Secret{testSecret}, false},
		{"a secret that is not set", "code", []Secret{""}, false},
		{"no secrets", "code", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := HoldsAny(c.text, c.secrets...); got != c.want {
				t.Fatalf("got %t", got)
			}
		})
	}
}
