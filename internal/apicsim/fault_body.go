// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"encoding/base64"
	"fmt"
	"net/http"
)

// Answering is a fault that answers 200 with a body, which may hold what Fault.Body may.
func Answering(body string) Fault {
	return Fault{Kind: KindStatus, Status: http.StatusOK, Body: body}
}

// Issuing is a fault that issues a token of these claims, which are JSON when the values are
// in their places; see Unsigned.
func Issuing(format string, values ...any) Fault {
	return Answering(`{"{field}":"` + Unsigned(fmt.Sprintf(format, values...)) + `"}`)
}

// Unsigned is a token of these claims, as JSON. Nobody signed it, which the engine does not
// check.
func Unsigned(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part([]byte(claims)) + "." + part([]byte("signature"))
}
