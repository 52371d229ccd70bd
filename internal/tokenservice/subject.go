// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"strings"
	"unicode"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// maxSubjectBytes is far beyond a UUID or a user's path, which are what was seen.
const maxSubjectBytes = 512

// Subject returns a JWT's sub claim, which names the token's owner. It is unverified, as
// all claims are here. If the claim is missing or not fit for storage and messages,
// subject is empty and reason completes the sentence "the token ...".
func Subject(token upstream.Secret) (subject, reason string) {
	claims, ok := readClaims(string(token))
	if !ok {
		return "", "is not a JWT"
	}
	if claims.Subject == "" {
		return "", "does not say whose it is: it has no sub claim"
	}
	unprintable := func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }
	if len(claims.Subject) > maxSubjectBytes || strings.ContainsFunc(claims.Subject, unprintable) {
		return "", "has a sub claim that can't be one"
	}
	return claims.Subject, ""
}
