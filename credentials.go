// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"encoding/json"
	"errors"
	"strings"
)

const maxClientFieldLength = 1024

// credentials are the toolkit's, as the platform's token endpoint wants them.
type credentials struct {
	clientID, clientSecret string
}

// parseCredentials takes the credentials.json that API Connect offers for
// download, whose toolkit member holds the pair. Its errors never quote the input.
func parseCredentials(input string) (credentials, error) {
	var file struct {
		Toolkit struct {
			ClientID     string `json:"client_id"`
			ClientSecret string `json:"client_secret"`
		} `json:"toolkit"`
	}
	if err := json.Unmarshal([]byte(input), &file); err != nil {
		return credentials{}, errors.New("is no credentials.json")
	}
	found := credentials{file.Toolkit.ClientID, file.Toolkit.ClientSecret}
	if found.clientID == "" || found.clientSecret == "" {
		return credentials{}, errors.New("is JSON without toolkit.client_id and toolkit.client_secret, so it is no credentials.json")
	}
	if checkClientField(found.clientID) != nil || checkClientField(found.clientSecret) != nil {
		return credentials{}, errors.New("holds a client_id or client_secret with white space, control or non-ASCII characters")
	}
	return found, nil
}

func checkClientField(value string) error {
	if len(value) > maxClientFieldLength {
		return errors.New("is too long")
	}
	if strings.ContainsFunc(value, notInKey) {
		return errors.New("holds white space, control or non-ASCII characters")
	}
	return nil
}
