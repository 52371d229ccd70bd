// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"io"
	"net/http"
)

// login is the token service of API Connect on IBM Cloud: the key is the apikey
// parameter of a POST without a body, and the token the answer's jwt property.
func (s *Sim) login() endpoint {
	return endpoint{
		name:   "login",
		field:  "jwt",
		signer: s.ecdsa,
		read: func(r *http.Request) (string, *refusal) {
			if refused := requireHeaders(r, "application/x-www-form-urlencoded"); refused != nil {
				return "", refused
			}
			key := r.URL.Query().Get("apikey")
			if body, err := io.ReadAll(io.LimitReader(r.Body, 1)); err != nil || len(body) > 0 || key == "" {
				return "", &refusal{http.StatusBadRequest, message("apikey must be a query parameter and the body empty")}
			}
			return key, nil
		},
		refuse: func(keyVerdict) refusal {
			return refusal{http.StatusUnauthorized, message("the API key is not valid")}
		},
	}
}
