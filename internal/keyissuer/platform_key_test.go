// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// publishedKey has the fields of the one published example of an answer.
const publishedKey = `{"type":"api_key","api_version":"2.0.0","id":"3c0225f7-0aad-45ce-a199-ced575befb9c","name":"n","title":"N","summary":"s",` +
	`"client_type":"toolkit","realm":"provider/oidc","user_url":"https://platform.example/api/users/1","id_token":"eyJhbGciOiJub25lIn0.e30.x",` +
	`"token_exp":1674104837,"token_iat":1674076037,"token_jti":"c73472c2-8c93-4fb6-bc8e-9b6a88775dfd","api_key":"14f27ecd-919a-41f5-a4f1-2a6012cb471c",` +
	`"description":"d","created_at":"2023-01-18T21:35:19.000Z","updated_at":"2023-01-18T21:35:19.000Z","url":"https://platform.example/api/cloud/api-keys/1"}`

// ownTimesKey says when it ends itself.
const ownTimesKey = `{"id":"k1","name":"n","token_iat":1674076037,"token_exp":1674104837,"api_key":"the-value"}`

var platformSeeds = []string{
	publishedKey, ownTimesKey, "", "{}", "null", "[]", "<html>", `{"id":1}`, `{"id":"../x","api_key":"v"}`, `{"id":"k1","api_key":""}`,
	`{"id":"` + knownSecret + `","api_key":"v"}`, `{"id":"k1","name":"` + knownSecret + `","description":"` + knownSecret + `","api_key":"v"}`,
	`{"id":"k1","name":"k1","api_key":"k1"}`, `{"id":"k1","token_exp":1e300,"token_jti":7,"api_key":"v"}`, `{"id":"k1","created_at":"9999999-01-01","token_exp":"1","api_key":"v"}`,
	"{\"id\":\"\xff\xfe\",\"api_key\":\"v\"}",
}

func TestParsePlatformKey_thePublishedExample(t *testing.T) {
	want := rotation.Details{ID: "3c0225f7-0aad-45ce-a199-ced575befb9c", Name: "n", Description: "d", CreatedAt: time.Date(2023, 1, 18, 21, 35, 19, 0, time.UTC)}
	if got, reason := oneKey[platformKey]([]byte(publishedKey), knownSecret); reason != "" || got != want {
		t.Errorf("got %+v, %s", got, reason)
	}
	got, value, reason := newKey[platformKey]([]byte(publishedKey), knownSecret)
	if reason != "" || got != want || value != "14f27ecd-919a-41f5-a4f1-2a6012cb471c" {
		t.Errorf("a new key is %+v, %s", got, reason)
	}
}

func TestParsePlatformKey_itsEndIsItsOwnAlone(t *testing.T) {
	for fields, want := range map[string]int64{
		`"token_exp":1674104837`:                 1674104837,
		`"token_exp":1674104837,"token_jti":""`:  1674104837,
		`"token_exp":1674104837,"token_jti":"j"`: 0,
		`"token_exp":"1674104837"`:               0,
		`"token_exp":-1`:                         0,
		`"token_exp":1e300`:                      0,
		`"token_exp":null`:                       0,
		`"token_iat":1674104837`:                 0,
	} {
		key, reason := oneKey[platformKey]([]byte(`{"id":"k1",`+fields+`}`), knownSecret)
		if reason != "" || key.ExpiresAt.IsZero() != (want == 0) || want != 0 && key.ExpiresAt.Unix() != want || !key.CreatedAt.IsZero() {
			t.Errorf("%s: the key is %+v, %s", fields, key, reason)
		}
	}
}

func TestSlug_keepsPrefixes(t *testing.T) {
	for name, want := range map[string]string{
		"vault-apic-0a-1b-us_South.2": "vault-apic-0a-1b-us-south-2",
		"Ünïcode \xff":                "-n-code--",
		strings.Repeat("ab", 100):     strings.Repeat("ab", 64),
		"":                            "",
	} {
		if got := slug(name); got != want {
			t.Errorf("%q: the slug is %q", name, got)
		}
	}
}

func FuzzSlug(f *testing.F) {
	f.Add("vault-apic-0a-", "1b-us_South")
	f.Add("", "\xff")
	f.Fuzz(func(t *testing.T, prefix, rest string) {
		name := slug(prefix + "/" + rest)
		if !strings.HasPrefix(name, slug(prefix+"/")) || len(name) > maxNameBytes || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Fatalf("the slug is %q", name)
		}
	})
}

// requirePlatformFit is requireFitToKeep for a key whose identity the session knows.
func requirePlatformFit(t *testing.T, key rotation.Details) {
	t.Helper()
	key.Identity, key.AccountID = "u", "a"
	requireFitToKeep(t, key)
}

func FuzzParsePlatformKey(f *testing.F) {
	fuzzKey(f, platformSeeds, oneKey[platformKey], requirePlatformFit)
}

func FuzzParseNewPlatformKey(f *testing.F) {
	fuzzNewKey(f, platformSeeds, newKey[platformKey], requirePlatformFit)
}

func FuzzParsePlatformList(f *testing.F) {
	for _, seed := range platformSeeds {
		f.Add([]byte(seed))
		f.Add([]byte(`{"total_results":1,"results":[` + seed + `]}`))
	}
	for _, total := range []string{"-1", "null", "1e9", `"1"`, "2"} {
		f.Add([]byte(`{"total_results":` + total + `,"results":[]}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, total, reason := parsePlatformList(body, knownSecret)
		if total < 0 || reason != "" && (keys != nil || total != 0) {
			t.Fatal("a list and a reason, or less than nothing")
		}
		for _, key := range keys {
			requirePlatformFit(t, key)
		}
	})
}
