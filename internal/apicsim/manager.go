// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"errors"
	"net/http"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// me is the API manager's own account of who a token belongs to.
func (s *Sim) me(w http.ResponseWriter, r *http.Request) {
	if claims := s.admit(w, r); claims != nil {
		answer(w, http.StatusOK, map[string]any{"id": claims.Subject, "username": claims.Subject, "token_id": claims.ID})
	}
}

// orgs lists the one organisation that everybody belongs to.
func (s *Sim) orgs(w http.ResponseWriter, r *http.Request) {
	if claims := s.admit(w, r); claims != nil {
		answer(w, http.StatusOK, map[string]any{"total_results": 1, "results": []any{map[string]any{"name": "simulated", "owner": claims.Subject}}})
	}
}

// admit returns the claims of a request's token, or answers why it has none that
// is good.
func (s *Sim) admit(w http.ResponseWriter, r *http.Request) *tokenClaims {
	claims, err := s.authenticate(r)
	if err != nil {
		s.refuseMe(w, err.Error())
		return nil
	}
	s.count(func(c *Counts) { c.MeAccepted++ })
	return claims
}

// authenticate returns the claims of a request's bearer token, or why it has none
// that is good, and notes the token for the log.
func (s *Sim) authenticate(r *http.Request) (*tokenClaims, error) {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, errors.New("a bearer token is required")
	}
	claims, err := s.verify(bearer)
	if err != nil {
		return nil, err
	}
	callOf(r).tokenID = claims.ID
	return claims, nil
}

// verify accepts a token of any of the services, which its algorithm tells apart.
func (s *Sim) verify(token string) (*tokenClaims, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.RS256})
	if err != nil {
		return nil, errors.New("the token is no JWT")
	}
	signerOf := s.ecdsa
	if parsed.Headers[0].Algorithm == string(jose.RS256) {
		signerOf = s.rsa
	}
	signer, err := signerOf()
	if err != nil {
		return nil, err
	}
	return signer.verify(s.now(), parsed)
}

func (s *Sim) refuseMe(w http.ResponseWriter, why string) {
	s.count(func(c *Counts) { c.MeRefused++ })
	answer(w, http.StatusUnauthorized, message(why))
}
