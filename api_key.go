// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode"
)

const maxAPIKeyLength = 4096

// parseAPIKey takes a bare key or the JSON of a downloaded apikey.json, whose
// apikey member counts in any case. Its errors never quote the input.
func parseAPIKey(input string) (string, error) {
	key := strings.TrimSpace(input)
	if strings.HasPrefix(key, "{") {
		found, err := keyOfFile(key)
		if err != nil {
			return "", err
		}
		key = strings.TrimSpace(found)
	}
	switch {
	case key == "":
		return "", errors.New("is empty")
	case len(key) > maxAPIKeyLength:
		return "", errors.New("is too long for an API key")
	case strings.ContainsFunc(key, notInKey):
		return "", errors.New("holds white space, control or non-ASCII characters; pass the bare key or the whole apikey.json")
	}
	return key, nil
}

// keyOfFile returns the one member that is called apikey, in any case. Of members
// whose names are the same to the letter the last one counts, as ever in JSON.
func keyOfFile(file string) (string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(file), &members); err != nil {
		return "", errors.New("looks like JSON but does not parse; pass the bare key or the whole apikey.json")
	}
	var key string
	found := 0
	for name, value := range members {
		if !strings.EqualFold(name, "apikey") {
			continue
		}
		found++
		if err := json.Unmarshal(value, &key); err != nil {
			return "", errors.New("is JSON whose apikey is no string")
		}
	}
	if found != 1 {
		return "", errors.New("is JSON without exactly one apikey member, so it is no apikey.json")
	}
	return key, nil
}

func notInKey(r rune) bool { return r > unicode.MaxASCII || !unicode.IsGraphic(r) || r == ' ' }
