// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"io"
	"net/http"
)

// login is the token service of API Connect on IBM Cloud: the key is the apikey
// parameter of a POST without a body, and the token the answer's jwt property.
func (s *Sim) login(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		s.answer(w, r, http.StatusMethodNotAllowed, message("only POST is allowed"))
		return
	}
	if r.Header.Get("Accept") != "application/json" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		s.answer(w, r, http.StatusUnsupportedMediaType, message("Accept or Content-Type is not supported"))
		return
	}
	key := r.URL.Query().Get("apikey")
	if body, err := io.ReadAll(io.LimitReader(r.Body, 1)); err != nil || len(body) > 0 || key == "" {
		s.answer(w, r, http.StatusBadRequest, message("apikey must be a query parameter and the body empty"))
		return
	}
	if !s.accepts(key) {
		s.count(func(c *Counts) { c.Refused++ })
		s.answer(w, r, http.StatusUnauthorized, message("the API key is not valid"))
		return
	}
	token, err := s.issue(key)
	if err != nil {
		s.answer(w, r, http.StatusInternalServerError, message("signing failed"))
		return
	}
	s.answer(w, r, http.StatusOK, map[string]any{"jwt": token})
}

func message(text string) map[string]any { return map[string]any{"message": text} }
