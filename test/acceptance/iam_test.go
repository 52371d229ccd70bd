// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestIAM_refusalNamesItsCodeAndWhatToDo(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.check(s.writeService("iam", nil))
	for _, c := range []struct {
		name    string
		prepare func(key string)
		says    []string
	}{
		{"a key that was deleted", s.sim.RevokeKey, []string{
			"does not know the API key (HTTP 400, BXNIM0415E)", "create one in IBM Cloud and write the config again", "IBM's support finds the request as ",
		}},
		{"a key that is disabled", s.sim.DisableKey, []string{
			"says that the API key is disabled (HTTP 400, BXNIM0462E)", "enable it in IBM Cloud", "IBM's support finds the request as ",
		}},
		{"a code that nobody knows", func(string) {
			s.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 400, Body: `{"errorCode":"BXNIM9999E","errorMessage":"` + s.key + `"}`})
		}, []string{"refused the API key (HTTP 400, BXNIM9999E)", "look the code up"}},
		{"a code that is the key", func(string) {
			s.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 400})
		}, []string{"refused the API key (HTTP 400)"}},
	} {
		says := append(c.says, "iam token service at ")
		written, cold := s.anotherKey(), s.anotherKey() // Of none is an earlier refusal remembered.
		c.prepare(written)
		c.prepare(cold)
		s.requireError(c.name+", at a write", s.writeService("iam", map[string]any{"api_key": written}), http.StatusBadRequest, says...)
		// What a read would answer is the current token, and that goes on.
		s.readToken("iam")
		unverified := s.serviceData("iam", s.service.URL(), map[string]any{"api_key": cold, "verify": false})
		s.write("apic/config/cold", unverified)
		s.requireError(c.name+", at a read", s.tryRead("apic/token/cold"), http.StatusBadRequest, says...)
	}
}

func TestIAM_reenabledKeyWorksAfterTheBackoff(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.check(s.writeService("iam", nil))
	s.sim.DisableKey(s.key)
	s.requireError("a disabled key", s.tryWrite("apic/token/iam", nil), http.StatusBadRequest, "BXNIM0462E")
	s.sim.AddKey(s.key)
	s.requireError("a write at once", s.writeService("iam", nil), http.StatusBadRequest, "BXNIM0462E", "the next attempt is possible in")
	s.eventually("the backoff is over", func() bool { return s.writeService("iam", nil) == nil })
	s.write("apic/token/iam", nil)
}
