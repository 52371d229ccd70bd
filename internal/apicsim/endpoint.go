// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
)

// endpoint is what one token service has of its own.
type endpoint struct {
	name string
	// field is the answer's property that holds the token.
	field  string
	signer func() (*signer, error)
	// read returns the key in a request, or what is wrong with the request.
	read func(*http.Request) (key string, refused *refusal)
	// refuse is the answer to a key that is not accepted.
	refuse func(keyVerdict) refusal
	// spoiltError is the body of a fault's error, if not that of all token services.
	spoiltError string
	// lifetime says that the answer tells the token's type and life.
	lifetime bool
}

// refusal is an answer that is not a token.
type refusal struct {
	status int
	body   map[string]any
}

// serve answers an endpoint's requests: it counts them, lets the fault in force
// act, and issues tokens.
func (s *Sim) serve(e endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.count(func(c *Counts) {
			c.Exchanges++
			c.InFlight++
			c.MostInFlight = max(c.MostInFlight, c.InFlight)
		})
		defer s.count(func(c *Counts) { c.InFlight-- })
		w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
		if r.Method != http.MethodPost {
			answer(w, http.StatusMethodNotAllowed, message("only POST is allowed"))
			return
		}
		key, refused := e.read(r)
		rightly := func(w http.ResponseWriter) { s.exchange(e, key, refused, w, r) }
		if f := s.nextFault(e.name); f != nil {
			s.act(f, e, key, rightly, w, r)
			return
		}
		rightly(w)
	}
}

func (s *Sim) exchange(e endpoint, key string, refused *refusal, w http.ResponseWriter, r *http.Request) {
	if refused != nil {
		answer(w, refused.status, refused.body)
		return
	}
	if verdict := s.useKey(e.name, key); verdict != keyAccepted {
		s.count(func(c *Counts) { c.Refused++ })
		refused := e.refuse(verdict)
		answer(w, refused.status, refused.body)
		return
	}
	token, claims, err := s.issue(e, key)
	if err != nil {
		answer(w, http.StatusInternalServerError, message("signing failed"))
		return
	}
	callOf(r).tokenID = claims["jti"].(string)
	answer(w, http.StatusOK, e.grant(token, claims))
}

func (e endpoint) sign(claims map[string]any) (string, error) {
	signer, err := e.signer()
	if err != nil {
		return "", err
	}
	return signer.sign(claims)
}

// grant is the body that carries a token.
func (e endpoint) grant(token string, claims map[string]any) map[string]any {
	body := map[string]any{e.field: token}
	if !e.lifetime {
		// Only the token is known to be in the login service's answer. This is made
		// up, because a client must not mind that there is more.
		body["username"] = claims["sub"]
		return body
	}
	body["token_type"] = "Bearer"
	issuedAt, _ := claims["iat"].(int64)
	if expiry, ok := claims["exp"].(int64); ok {
		body["expires_in"] = expiry - issuedAt
		if e.name == "iam" {
			body["expiration"] = expiry
		}
	}
	return body
}

func requireHeaders(r *http.Request, contentType string) *refusal {
	if r.Header.Get("Accept") != "application/json" || r.Header.Get("Content-Type") != contentType {
		return &refusal{http.StatusUnsupportedMediaType, message("Accept or Content-Type is not supported")}
	}
	return nil
}
