// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// maxTokenLife is far beyond any token that API Connect issues; an expiry
	// further off is a mistake, and a token kept that long would hide it.
	maxTokenLife = 366 * 24 * time.Hour

	maxTokenIDBytes = 128

	// minSecretBytes is the shortest secret that is looked for in tokens: a shorter one may
	// occur there by chance.
	minSecretBytes = 8

	// minClockDifference is the smallest clock skew that is reported. Less may come from
	// drift and from the time that an answer takes.
	minClockDifference = time.Minute
)

// newToken reads a JWT's claims. The signature is not checked: what vouches for
// the token is the TLS connection to the service that issued it. A token that
// does not say itself when it expires does so at stated, unless that is zero.
// clockSkew is how far this host's clock seems to be ahead of the service's. Where
// the token is of no use, reason completes the sentence "the service ...".
func newToken(raw string, stated time.Time, clockSkew time.Duration, secrets ...upstream.Secret) (token *Token, reason string) {
	claims, ok := readClaims(raw)
	if !ok {
		return nil, "answered a token that is not a JWT"
	}
	if carries(raw, secrets) {
		return nil, "answered a token that holds the API key or the client secret"
	}
	expiresAt := stated.UTC()
	if clockSkew.Abs() < minClockDifference {
		clockSkew = 0
	}
	if claims.Expiry != nil {
		// By a clock that is behind, a token would outlive its end.
		early := untilIssued(claims)
		expiresAt = claims.Expiry.Time().UTC().Add(-early)
		if clockSkew == 0 {
			clockSkew = -early
		}
	}
	if expiresAt.IsZero() {
		return nil, "answered a token that does not say when it expires"
	}
	switch life := time.Until(expiresAt); {
	case life <= 0:
		return nil, fmt.Sprintf("answered a token that expired %s ago; %s", (-life).Round(time.Second), clockAdvice(clockSkew))
	case life > maxTokenLife:
		return nil, "answered a token that claims to live for more than a year"
	}
	return &Token{
		Value:     upstream.Secret(raw),
		ID:        tokenID(claims.ID, raw, secrets),
		ExpiresAt: expiresAt,
		ClockSkew: clockSkew,
	}, ""
}

// untilIssued is how far in the future a token says that it was issued, or becomes
// valid; 0 if that is not far.
func untilIssued(claims jwt.Claims) time.Duration {
	var longest time.Duration
	for _, at := range []*jwt.NumericDate{claims.IssuedAt, claims.NotBefore} {
		if at != nil {
			longest = max(longest, time.Until(at.Time()))
		}
	}
	if longest < minClockDifference {
		return 0
	}
	return longest
}

func clockAdvice(ahead time.Duration) string {
	switch {
	case ahead > 0:
		return fmt.Sprintf("this host's clock is %s ahead of the service's: set it right", ahead.Round(time.Second))
	case ahead < 0:
		return fmt.Sprintf("this host's clock is %s behind the service's: set it right", (-ahead).Round(time.Second))
	default:
		return "compare this host's clock with the service's"
	}
}

// compact is the compact serialization of a signed JWT (RFC 7515, section 7.1): three
// parts in base64url without padding.
var compact = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// readClaims judges the form by itself, because go-jose's base64 passes over line
// ends: a token is put into headers by those who get it.
func readClaims(raw string) (claims jwt.Claims, ok bool) {
	if !compact.MatchString(raw) {
		return claims, false
	}
	parsed, err := jwt.ParseSigned(raw, signatureAlgorithms())
	if err != nil {
		return claims, false
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return claims, false
	}
	return claims, true
}

// carries says whether a JWT has one of the secrets in it, whole: as it is, in what its
// parts encode, or in the texts of their JSON, which may be written with escapes. Parts of
// a secret are not sought: words of a client secret may be names of claims.
func carries(raw string, secrets []upstream.Secret) bool {
	sought := slices.DeleteFunc(slices.Clone(secrets), func(secret upstream.Secret) bool { return len(secret) < minSecretBytes })
	if upstream.HoldsWhole(raw, sought...) {
		return true
	}
	for part := range strings.SplitSeq(raw, ".") {
		decoded, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			continue
		}
		if upstream.HoldsWhole(string(decoded), sought...) || upstream.HoldsWhole(textsOf(decoded), sought...) {
			return true
		}
	}
	return false
}

// textsOf are the texts in a JSON document, names and values, one to a line.
func textsOf(document []byte) string {
	var texts strings.Builder
	for tokens := json.NewDecoder(bytes.NewReader(document)); ; {
		token, err := tokens.Token()
		if err != nil {
			return texts.String()
		}
		if text, ok := token.(string); ok {
			texts.WriteString(text + "\n")
		}
	}
}

// tokenID prefers the JWT's own jti. A jti that could not stand in a log line,
// or that gives a secret away, is replaced by a digest of the token.
func tokenID(jti, raw string, secrets []upstream.Secret) string {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if jti != "" && len(jti) <= maxTokenIDBytes && !strings.ContainsFunc(jti, unprintable) && !upstream.HoldsAny(jti, secrets...) {
		return jti
	}
	digest := sha256.Sum256([]byte(raw))
	return "sha256:" + hex.EncodeToString(digest[:8])
}

func signatureAlgorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.ES256, jose.ES384, jose.ES512,
		jose.RS256, jose.RS384, jose.RS512,
		jose.PS256, jose.PS384, jose.PS512,
		jose.EdDSA, jose.HS256, jose.HS384, jose.HS512,
	}
}
