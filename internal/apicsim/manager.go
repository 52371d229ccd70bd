// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
	"strings"
)

// me is the API manager's own account of who a token belongs to.
func (s *Sim) me(w http.ResponseWriter, r *http.Request) {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		s.refuseMe(w, r, "a bearer token is required")
		return
	}
	claims, err := s.signer.verify(bearer)
	if err != nil {
		s.refuseMe(w, r, err.Error())
		return
	}
	s.count(func(c *Counts) { c.MeAccepted++ })
	s.answer(w, r, http.StatusOK, map[string]any{"id": claims.Subject, "username": claims.Subject, "token_id": claims.ID})
}

func (s *Sim) refuseMe(w http.ResponseWriter, r *http.Request, why string) {
	s.count(func(c *Counts) { c.MeRefused++ })
	s.answer(w, r, http.StatusUnauthorized, message(why))
}
