// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// jwtOf is a JWT with these claims and a signature that nobody made.
func jwtOf(claims string) upstream.Secret {
	return upstream.Secret("eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".AAAA")
}

func TestSubject_isThatOfAJWTAlone(t *testing.T) {
	const path = "/api/user-registries/o/r/users/5f3c"
	for name, c := range map[string]struct {
		token           upstream.Secret
		subject, reason string
	}{
		"a path":          {jwtOf(`{"sub":"` + path + `"}`), path, ""},
		"no sub":          {jwtOf(`{"jti":"x"}`), "", "no sub claim"},
		"an empty one":    {jwtOf(`{"sub":""}`), "", "no sub claim"},
		"two lines":       {jwtOf(`{"sub":"a\nb"}`), "", "can't be one"},
		"broken UTF-8":    {jwtOf("{\"sub\":\"a\xff\"}"), "", "can't be one"},
		"one without end": {jwtOf(`{"sub":"` + strings.Repeat("x", 513) + `"}`), "", "can't be one"},
		"a number":        {jwtOf(`{"sub":1}`), "", "not a JWT"},
		"an API key":      {"0Kq3+canary/key=Zz9", "", "not a JWT"},
		"nothing":         {"", "", "not a JWT"},
	} {
		t.Run(name, func(t *testing.T) {
			subject, reason := Subject(c.token)
			if subject != c.subject || !strings.Contains(reason, c.reason) || (reason == "") != (c.reason == "") {
				t.Fatalf("the subject is %q, %s", subject, reason)
			}
		})
	}
}

func FuzzSubject(f *testing.F) {
	for _, seed := range []string{"", "a.b.c", string(jwtOf(`{"sub":"u"}`)), string(jwtOf(`{"sub":1}`)), string(jwtOf("{\"sub\":\"a\xff\"}")), string(jwtOf("null"))} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		subject, reason := Subject(upstream.Secret(token))
		if (subject == "") == (reason == "") || len(subject) > maxSubjectBytes || strings.ContainsAny(subject, "\n\r\x00") {
			t.Fatal("neither or both of a subject and a reason, or one that is not fit to keep")
		}
	})
}
