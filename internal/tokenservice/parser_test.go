// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"strings"
	"testing"
)

func FuzzTheLoginAnswerParser(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"jwt":""}`, `{"jwt":"a.b.c"}`, `{"JWT":"a"}`, `{"jwt":1}`, `{"jwt":"a","jwt":"b"}`, `[{"jwt":"a"}]`,
		"<html>", `{"jwt":"` + strings.Repeat("a", 1<<16) + `"}`, "{\"jwt\":\"\xff\xfe\"}", `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		jwt, reason := parseLoginAnswer(body)
		if (jwt == "") == (reason == "") {
			t.Fatal("neither or both of a token and a reason")
		}
	})
}

func FuzzTheTokenReader(f *testing.F) {
	for _, seed := range []string{
		"", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJFUzM4NCJ9.eyJleHAiOjFlMzAwfQ.AA",
		"eyJhbGciOiJFUzM4NCJ9.eyJleHAiOjQxMDI0NDQ4MDB9.AA", "eyJhbGciOiJFUzM4NCJ9.eyJleHAiOi0xfQ.AA", "eyJhbGciOiJFUzM4NCJ9.bnVsbA.AA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		token, reason := newToken(raw, "a-key-of-some-length")
		if (token == nil) == (reason == "") {
			t.Fatal("neither or both of a token and a reason")
		}
		if token != nil && (token.ID == "" || len(token.ID) > maxTokenIDBytes) {
			t.Fatalf("the token's id has %d bytes", len(token.ID))
		}
	})
}
