// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

const testSecret = Secret("0Kq3-canary-Zz9")

func TestSecret_notPrintedByAnyVerb(t *testing.T) {
	type holder struct{ Value Secret }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{testSecret, []Secret{testSecret}, holder{Value: testSecret}} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, "canary") || !strings.Contains(text, redacted) {
				t.Errorf("%s prints a secret in a %T", verb, value)
			}
		}
	}
}

func TestHoldsAny_findsSecretsInAnyForm(t *testing.T) {
	for _, c := range []struct {
		name    string
		text    string
		secrets []Secret
		want    bool
	}{
		{"the secret itself", string(testSecret), []Secret{testSecret}, true},
		{"the secret within", "code-" + string(testSecret), []Secret{"other", testSecret}, true},
		{"its first eight characters", "id-0Kq3-can", []Secret{testSecret}, true},
		{"its last eight characters", "nary-Zz9-id", []Secret{testSecret}, true},
		{"eight from its middle", "q3-canar", []Secret{testSecret}, true},
		{"seven of its characters", "id-0Kq3-ca", []Secret{testSecret}, false},
		{"its hex", "304b71332d63616e6172792d5a7a39", []Secret{testSecret}, true},
		{"its hex in capitals", "304B71332D63616E6172792D5A7A39", []Secret{testSecret}, true},
		{"the hex of eight characters", "id-304b71332d63616e", []Secret{testSecret}, true},
		{"the hex of seven", "id-304b71332d6361", []Secret{testSecret}, false},
		{"its base64", "MEtxMy1jYW5hcnktWno5", []Secret{testSecret}, true},
		{"a key's escaped form", "a%2Bb%2Fc%3Dd%26e", []Secret{"a+b/c=d&e"}, true},
		{"a key escaped throughout", "%61%2b%62%2F%63%3d%64%26%65", []Secret{"a+b/c=d&e"}, true},
		{"a broken escape", "100%-0Kq3-can%", []Secret{testSecret}, true},
		{"a short secret", "id-abc", []Secret{"abc"}, true},
		{"half of a short secret", "id-ab", []Secret{"abc"}, false},
		{"the base64 of a short secret", "id-YWJj", []Secret{"abc"}, false},
		{"another text", "code", []Secret{testSecret}, false},
		{"a secret that is not set", "code", []Secret{""}, false},
		{"no secrets", "code", nil, false},
		{"no text", "", []Secret{testSecret}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := HoldsAny(c.text, c.secrets...); got != c.want {
				t.Fatalf("got %t", got)
			}
		})
	}
}

func TestHandle_printsNoPartOfASecret(t *testing.T) {
	for text, want := range map[string]string{
		"9daee671-916a-4678-850b-10b911f0236d": "9daee671-916a-4678-850b-10b911f0236d",
		"id-MEtxMy1jYW5h":                      "",
		"304b71332d63616e6172":                 "",
		"0Kq3-canary":                          "",
		"two words":                            "",
		"":                                     "",
		strings.Repeat("x", 65):                "",
	} {
		if got := Handle(text, testSecret); got != want {
			t.Errorf("the handle is %q", got)
		}
	}
}

// FuzzHoldsAny wraps a secret into other text and encodes the whole as a careless
// service might.
func FuzzHoldsAny(f *testing.F) {
	f.Add("before ", string(testSecret), " after")
	f.Add("", "0Kq3+canary/key=Zz9", "")
	f.Add("\xff", "12345678", "\x00")
	f.Add("%", "%25%25%25%25", "%4")
	f.Fuzz(func(t *testing.T, before, secret, after string) {
		if len(secret) < tellingRun || strings.Contains(secret, " ") {
			return
		}
		whole := before + secret + after
		for name, text := range map[string]string{
			"as it is": secret, "in a query": url.QueryEscape(whole), "in a path": url.PathEscape(whole),
			"hex": hex.EncodeToString([]byte(whole)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(whole))),
			"base64": base64.StdEncoding.EncodeToString([]byte(whole)), "raw base64": base64.RawStdEncoding.EncodeToString([]byte(whole)),
			"URL base64": base64.URLEncoding.EncodeToString([]byte(whole)), "raw URL base64": base64.RawURLEncoding.EncodeToString([]byte(whole)),
		} {
			if !HoldsAny(text, Secret(secret)) || !HoldsAny("id-"+text, "another-one", Secret(secret)) {
				t.Errorf("a secret of %d bytes is not found %s", len(secret), name)
			}
		}
	})
}

func BenchmarkHoldsAny(b *testing.B) {
	key, bearer := Secret(strings.Repeat("0Kq3", 11)), Secret(strings.Repeat("eyJhbGciOiJSUzI1NiJ9", 75))
	for b.Loop() {
		HoldsAny("9daee671-916a-4678-850b-10b911f0236d", key, bearer)
	}
}
