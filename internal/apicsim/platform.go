// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"encoding/json"
	"io"
	"net/http"
)

const platformName = "platform"

// platform is the token endpoint of API Connect SaaS and of self-managed V10 and
// V12: JSON in, and errors with a numeric status and a list of messages.
func (s *Sim) platform() endpoint {
	return endpoint{
		name:   platformName,
		field:  "access_token",
		signer: s.rsa,
		read:   s.readPlatformRequest,
		refuse: func(keyVerdict) refusal {
			return refusal{http.StatusUnauthorized, platformError(http.StatusUnauthorized, "The API key is not valid or has expired.")}
		},
		lifetime: true,
	}
}

func (s *Sim) readPlatformRequest(r *http.Request) (string, *refusal) {
	if refused := requireHeaders(r, "application/json"); refused != nil {
		return "", refused
	}
	var body struct {
		GrantType    string `json:"grant_type"`
		APIKey       string `json:"api_key"`
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
	}
	err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&body)
	if err != nil || body.GrantType != "api_key" || body.APIKey == "" || r.URL.RawQuery != "" {
		return "", &refusal{http.StatusBadRequest, platformError(http.StatusBadRequest, "The request is not valid.")}
	}
	if body.ClientID != s.clientID || body.ClientSecret != s.secret {
		return body.APIKey, &refusal{http.StatusUnauthorized, platformError(http.StatusUnauthorized, "The client credentials are not valid.")}
	}
	return body.APIKey, nil
}

func platformError(status int, text string) map[string]any {
	return map[string]any{"status": status, "message": []string{text}, "errors": []string{text}}
}
