// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"strings"
	"testing"
	"time"
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
		token, reason := newToken(raw, time.Time{}, 0, "a-key-of-some-length")
		if (token == nil) == (reason == "") {
			t.Fatal("neither or both of a token and a reason")
		}
		if token != nil && (token.ID == "" || len(token.ID) > maxTokenIDBytes) {
			t.Fatalf("the token's id has %d bytes", len(token.ID))
		}
	})
}

func FuzzTheGrantParser(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"access_token":""}`, `{"access_token":"a.b.c","token_type":"bearer","expires_in":3600}`,
		`{"access_token":"a","expires_in":-1}`, `{"access_token":"a","expires_in":1e300}`, `{"access_token":"a","expiration":99999999999999999999}`,
		`{"access_token":"a","token_type":"MAC"}`, `{"access_token":"a","token_type":7}`, `null`, `[]`, "<html>",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		now := time.Unix(1_800_000_000, 0)
		g, reason := parseGrant(body, now)
		if (g.accessToken == "") == (reason == "") {
			t.Fatal("neither or both of a token and a reason")
		}
		if !g.expiresAt.IsZero() && g.expiresAt.Unix() <= 0 {
			t.Fatalf("the token ends at %s", g.expiresAt)
		}
	})
}

func FuzzTheErrorParsers(f *testing.F) {
	for _, seed := range []string{
		"", `{"errorCode":"BXNIM0415E","context":{"requestId":"a-b"}}`, `{"errorCode":"a-key-of-some-length"}`, `{"status":401}`,
		`{"status":"401","message":["x"]}`, `{"status":1e9}`, `{"context":[]}`, "<html>",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		code, requestID := parseIAMError(body, "a-key-of-some-length")
		if len(code) > 20 || len(requestID) > 64 || strings.Contains(code+requestID, "a-key-of-some-length") {
			t.Fatal("a code or request id is not fit to print")
		}
		if status := parsePlatformStatus(body); status != 0 && (status < 100 || status > 999) {
			t.Fatalf("status is %d", status)
		}
	})
}
