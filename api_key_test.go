// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func FuzzParseAPIKey(f *testing.F) {
	for _, seed := range []string{
		"", "key", " key\n", `{"apikey":"key"}`, `{"APIKEY":" key "}`, `{"apikey":1}`, `{"apikey":"a","apiKey":"b"}`,
		`{`, `[]`, `{"apikey":"{\"apikey\":\"x\"}"}`, "\x00", "k\u00e9y", strings.Repeat("k", 5000),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		key, err := parseAPIKey(input)
		if err != nil {
			if key != "" {
				t.Fatal("a key came with an error")
			}
			if len(input) > 20 && strings.Contains(err.Error(), input) {
				t.Fatal("the error quotes the input")
			}
			return
		}
		if key == "" || len(key) > maxAPIKeyLength || strings.ContainsFunc(key, notInKey) {
			t.Fatalf("a key of %d bytes passed", len(key))
		}
	})
}

func FuzzParseCredentials(f *testing.F) {
	for _, seed := range []string{"", "{}", testCredentials, `{"toolkit":{"client_id":"a"}}`, `{"toolkit":[]}`, "{\"toolkit\":{\"client_id\":\"\x00\",\"client_secret\":\"b\"}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		found, err := parseCredentials(input)
		if (err == nil) != (found.clientID != "" && found.clientSecret != "") {
			t.Fatal("neither or both of credentials and an error")
		}
		if err != nil && len(input) > 20 && strings.Contains(err.Error(), input) {
			t.Fatal("the error quotes the input")
		}
	})
}

func TestSecret_sentAsJSONBecomesText(t *testing.T) {
	req := &logical.Request{Data: map[string]any{"api_key": map[string]any{"apikey": "k"}, "region": map[string]any{"a": 1}}}
	stringifySecretFields(req)
	if req.Data["api_key"] != `{"apikey":"k"}` {
		t.Error("api_key is not the object's JSON")
	}
	if _, ok := req.Data["region"].(map[string]any); !ok {
		t.Error("another field was touched")
	}
}
