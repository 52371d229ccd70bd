// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

func FuzzLoginParser(f *testing.F) {
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

func TestNewToken_acceptsCompactSerializationOnly(t *testing.T) {
	const header, claims, signature = "eyJhbGciOiJFUzM4NCJ9", "eyJqdGkiOiJpZCJ9", "AAAA"
	for name, c := range map[string]struct {
		raw string
		ok  bool
	}{
		"three parts":                     {header + "." + claims + "." + signature, true},
		"a line feed behind":              {header + "." + claims + "." + signature + "\n", false},
		"a line feed before":              {"\n" + header + "." + claims + "." + signature, false},
		"a line end in the header":        {header[:4] + "\r\n" + header[4:] + "." + claims + "." + signature, false},
		"a line feed in the claims":       {header + "." + claims[:4] + "\n" + claims[4:] + "." + signature, false},
		"a carriage return in the claims": {header + "." + claims[:4] + "\r" + claims[4:] + "." + signature, false},
		"a line feed in the signature":    {header + "." + claims + ".AA\nAA", false},
		"another header line":             {header + "." + claims + "." + signature + "\r\nX-Admin: AAAA", false},
		"a space":                         {header + " ." + claims + "." + signature, false},
		"padding":                         {header + "." + claims + ".AAA=", false},
		"the alphabet of plain base64":    {header + "." + claims + ".AA+/", false},
		"a NUL":                           {header + "." + claims + "." + signature + "\x00", false},
		"two parts":                       {header + "." + claims, false},
		"no signature":                    {header + "." + claims + ".", false},
		"five parts":                      {header + "." + claims + "." + signature + "." + signature + "." + signature, false},
	} {
		t.Run(name, func(t *testing.T) {
			token, reason := newToken(c.raw, time.Now().Add(time.Hour), 0)
			if (token != nil) != c.ok {
				t.Fatalf("accepted is %t: %s", token != nil, reason)
			}
		})
	}
}

// TestNewToken_holdsNoSecretInAnyForm has tokens whose readers could take the key from
// them, and some that only look like it.
func TestNewToken_holdsNoSecretInAnyForm(t *testing.T) {
	const key, short = "0Kq3+canary/k&y<Zz9", "client"
	part := base64.RawURLEncoding.EncodeToString
	escaped, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		claims string
		ok     bool
	}{
		"the key":                             {`{"sub":"` + key + `"}`, false},
		"the key as Go's encoder writes it":   {`{"sub":` + string(escaped) + `}`, false},
		"the key as PHP's encoder writes it":  {`{"sub":"` + strings.ReplaceAll(key, "/", `\/`) + `"}`, false},
		"the key for a claim's name":          {`{` + string(escaped) + `:true}`, false},
		"the key deep within":                 {`{"a":[{"b":["x",` + string(escaped) + `]}]}`, false},
		"the key escaped as in URLs":          {`{"sub":"` + url.QueryEscape(key) + `"}`, false},
		"the key in hex":                      {`{"sub":"` + strings.ToUpper(hex.EncodeToString([]byte(key))) + `"}`, false},
		"the key within base64":               {`{"sub":"` + base64.StdEncoding.EncodeToString([]byte("id:"+key)) + `"}`, false},
		"the key within a token of its own":   {`{"act":"e30.` + part([]byte(`{"sub":"`+key+`"}`)) + `.AA"}`, false},
		"half of the key":                     {`{"sub":"` + key[:10] + `"}`, true},
		"a secret too short to be told apart": {`{"client_id":"` + short + `"}`, true},
		"claims without a secret":             {`{"sub":"a","n":[1,null,true,{"x":"\u0041"}]}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			raw := part([]byte(`{"alg":"ES384"}`)) + "." + part([]byte(c.claims)) + ".AAAA"
			token, reason := newToken(raw, time.Now().Add(time.Hour), 0, key, short)
			if (token != nil) != c.ok {
				t.Errorf("that the token is accepted is %t: %s", token != nil, reason)
			}
		})
	}
}

func TestTokenID_givesNoPartOfASecret(t *testing.T) {
	const key, clientSecret = "0Kq3+canary/key=Zz9", "0Kq3+canary/client=Zz9"
	for jti, kept := range map[string]bool{
		"2f1f7c1e-6c5e-4a5e-9d0e-0d3f0a0c7b7e": true,
		key:                                    false,
		"id-" + clientSecret:                   false,
		key[:8]:                                false,
		url.QueryEscape(key):                   false,
		hex.EncodeToString([]byte(key)):        false,
		base64.RawURLEncoding.EncodeToString([]byte("id " + key)): false,
	} {
		id := tokenID(jti, "a.b.c", []upstream.Secret{key, clientSecret})
		if (id == jti) != kept || !kept && !strings.HasPrefix(id, "sha256:") {
			t.Errorf("that a jti of %d characters is kept is %t", len(jti), id == jti)
		}
	}
}

func FuzzNewToken(f *testing.F) {
	for _, seed := range []string{
		"", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJFUzM4NCJ9.eyJleHAiOjFlMzAwfQ.AA",
		"eyJhbGciOiJFUzM4NCJ9.eyJleHAiOjQxMDI0NDQ4MDB9.AA", "eyJhbGciOiJFUzM4NCJ9\r\n.eyJleHAiOjQxMDI0NDQ4MDB9.AA", "eyJhbGciOiJFUzM4NCJ9.eyJleHAiOi0xfQ.AA", "eyJhbGciOiJFUzM4NCJ9.bnVsbA.AA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		// What the token does not say, the answer does, so that its form alone decides.
		token, reason := newToken(raw, time.Now().Add(time.Hour), 0, "a-key-of-some-length")
		if (token == nil) == (reason == "") {
			t.Fatal("neither or both of a token and a reason")
		}
		if token != nil && (token.ID == "" || len(token.ID) > maxTokenIDBytes) {
			t.Fatalf("the token's id has %d bytes", len(token.ID))
		}
		if token != nil && strings.Trim(raw, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			t.Fatal("the token holds something that is not to be in one")
		}
	})
}

func FuzzGrantParser(f *testing.F) {
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

func TestPlatformStatus_isReadFromThePlatformsFormAlone(t *testing.T) {
	for body, want := range map[string]int{
		`{"status":404,"message":["Not found"]}`:        404,
		`{"status":404,"errors":["Not found"]}`:         404,
		`{"status":404,"message":["x"],"errors":["x"]}`: 404,
		`{"status":404}`:                                    0,
		`{"status":404,"message":"Not found"}`:              0,
		`{"status":404,"error":"Not Found","message":null}`: 0,
		`{"status":"not a number","message":["Not found"]}`: 0,
		`{"status":4040,"message":["Not found"]}`:           0,
		`{"message":["Not found"]}`:                         0,
		`<html>404</html>`:                                  0,
		``:                                                  0,
	} {
		if got := PlatformStatus([]byte(body)); got != want {
			t.Errorf("%s: the status is %d", body, got)
		}
	}
}

func FuzzErrorParsers(f *testing.F) {
	for _, seed := range []string{
		"", `{"errorCode":"BXNIM0415E","context":{"requestId":"a-b"}}`, `{"errorCode":"a-key-of-some-length"}`, `{"status":401}`, `{"status":401,"errors":[]}`,
		`{"status":"401","message":["x"]}`, `{"status":1e9}`, `{"context":[]}`, "<html>",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		code, requestID := parseIAMError(body, "a-key-of-some-length")
		if len(code) > 20 || len(requestID) > 64 || strings.Contains(code+requestID, "a-key-of-some-length") {
			t.Fatal("a code or request id is not fit to print")
		}
		if status := PlatformStatus(body); status != 0 && (status < 100 || status > 999) {
			t.Fatalf("status is %d", status)
		}
	})
}
