// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4/jwt"
)

// me is the API manager's own account of who a token belongs to.
func (s *Sim) me(w http.ResponseWriter, r *http.Request) {
	if claims := s.admit(w, r); claims != nil {
		s.answer(w, r, http.StatusOK, map[string]any{"id": claims.Subject, "username": claims.Subject, "token_id": claims.ID})
	}
}

// orgs lists the one organisation that everybody belongs to.
func (s *Sim) orgs(w http.ResponseWriter, r *http.Request) {
	if claims := s.admit(w, r); claims != nil {
		s.answer(w, r, http.StatusOK, map[string]any{"total_results": 1, "results": []any{map[string]any{"name": "simulated", "owner": claims.Subject}}})
	}
}

// admit returns the claims of a request's token, or answers why it has none that
// is good.
func (s *Sim) admit(w http.ResponseWriter, r *http.Request) *jwt.Claims {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		s.refuseMe(w, r, "a bearer token is required")
		return nil
	}
	claims, err := s.verify(bearer)
	if err != nil {
		s.refuseMe(w, r, err.Error())
		return nil
	}
	s.count(func(c *Counts) { c.MeAccepted++ })
	return claims
}

// verify takes a token of any of the services.
func (s *Sim) verify(token string) (claims *jwt.Claims, err error) {
	for _, signerOf := range []func() (*signer, error){s.ecdsa, s.rsa} {
		signer, failed := signerOf()
		if failed != nil {
			return nil, failed
		}
		if claims, err = signer.verify(token); err == nil {
			return claims, nil
		}
	}
	return nil, err
}

func (s *Sim) refuseMe(w http.ResponseWriter, r *http.Request, why string) {
	s.count(func(c *Counts) { c.MeRefused++ })
	s.answer(w, r, http.StatusUnauthorized, message(why))
}
