// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
)

// iam is IBM Cloud's identity service: a form of grant type and key, and errors
// with a code and a request id. Its codes are those of IBM's API reference for
// POST /identity/token.
func (s *Sim) iam() endpoint {
	return endpoint{
		name:   "iam",
		field:  "access_token",
		signer: s.rsa,
		read: func(r *http.Request) (string, *refusal) {
			if refused := requireHeaders(r, "application/x-www-form-urlencoded"); refused != nil {
				return "", refused
			}
			key := r.PostFormValue("apikey")
			if r.PostFormValue("grant_type") != "urn:ibm:params:oauth:grant-type:apikey" || key == "" || r.URL.RawQuery != "" {
				return "", &refusal{http.StatusBadRequest, iamError("BXNIM0109E", "Property missing or empty: grant_type or apikey")}
			}
			return key, nil
		},
		refuse: func(verdict keyVerdict) refusal {
			if verdict == keyDisabled {
				return refusal{http.StatusBadRequest, iamError("BXNIM0462E", "Provided API key is disabled.")}
			}
			return refusal{http.StatusBadRequest, iamError("BXNIM0415E", "Provided API key could not be found.")}
		},
		lifetime: true,
	}
}

// transactionID is the header in which IAM's answers name the request for IBM's
// support.
const transactionID = "Transaction-Id"

// named gives each answer of IAM's its name.
func named(handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(transactionID, newID())
		handler(w, r)
	}
}

// echoTransactionID names an answer after a secret, if it has a name.
func echoTransactionID(w http.ResponseWriter, secret string) {
	if w.Header().Get(transactionID) != "" {
		w.Header().Set(transactionID, secret)
	}
}

func iamError(code, text string) map[string]any {
	return map[string]any{
		"errorCode":    code,
		"errorMessage": text,
		"context":      map[string]any{"requestId": newID()},
	}
}
