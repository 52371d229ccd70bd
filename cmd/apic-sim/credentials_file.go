// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// credentialsFile has the members that matter of the credentials.json that API
// Connect offers for its toolkit.
type credentialsFile struct {
	Toolkit struct {
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
	} `json:"toolkit"`
}

func readOrMakeCredentials(path string) (credentialsFile, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeCredentials(path)
	}
	if err != nil {
		return credentialsFile{}, err
	}
	var file credentialsFile
	err = json.Unmarshal(content, &file)
	if err != nil || file.Toolkit.ClientID == "" || file.Toolkit.ClientSecret == "" {
		return credentialsFile{}, fmt.Errorf("%s is no credentials.json", path)
	}
	return file, nil
}

func makeCredentials(path string) (credentialsFile, error) {
	var file credentialsFile
	file.Toolkit.ClientID, file.Toolkit.ClientSecret = apicsim.NewKeyValue(), apicsim.NewKeyValue()
	content, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return credentialsFile{}, err
	}
	return file, os.WriteFile(path, append(content, '\n'), 0o600)
}
