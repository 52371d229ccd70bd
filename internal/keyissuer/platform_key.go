// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// platformKey is a key as the platform writes it. Other fields are ignored; one of them,
// id_token, is secret.
type platformKey struct {
	ID          string           `json:"id"`
	Name        string           `json:"name"`
	Description string           `json:"description"`
	CreatedAt   string           `json:"created_at"`
	TokenExp    json.RawMessage  `json:"token_exp"`
	TokenJTI    string           `json:"token_jti"`
	Value       *upstream.Secret `json:"api_key"`
}

// newPlatformKeyRequest is a key as the platform is asked for it. It requires
// client_type and description.
type newPlatformKeyRequest struct {
	ClientType  string `json:"client_type"`
	Description string `json:"description"`
	Name        string `json:"name"`
	Title       string `json:"title"`
	// TTL is in seconds.
	TTL int64 `json:"ttl,omitempty"`
}

// platformList is one page of keys.
type platformList struct {
	Total   *int           `json:"total_results"`
	Results *[]platformKey `json:"results"`
}

// defaultDescription is for a key that has no predecessor with a description.
const defaultDescription = "Made by HashiCorp Vault, which replaces and deletes it: do not use it elsewhere"

// maxNameBytes is the most that a key's name has.
const maxNameBytes = 128

// slug is a name in the form that the platform wants: of lower case letters, digits and
// hyphens. It is cut at its end: the unique parts come first. What begins with a prefix
// has a slug that begins with the prefix's.
func slug(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '-'
		}
	}, name)
	return name[:min(len(name), maxNameBytes)]
}

// parsePlatformList returns a page's keys and how many there are on all pages.
func parsePlatformList(body []byte, secrets ...upstream.Secret) (keys []rotation.Details, total int, reason string) {
	var parsed platformList
	if reason := upstream.Decode(body, &parsed, listShape); reason != "" {
		return nil, 0, reason
	}
	if parsed.Results == nil || parsed.Total == nil || *parsed.Total < 0 {
		return nil, 0, withoutList
	}
	if keys, reason = keysOf(*parsed.Results, secrets); reason != "" {
		return nil, 0, reason
	}
	return keys, *parsed.Total, ""
}

// key has an id if there is no reason. Whose it is the session knows.
func (k platformKey) key(secrets []upstream.Secret) (key rotation.Details, reason string) {
	fit := newScreen(k.Value, secrets)
	key = rotation.Details{
		ID: fit.id(k.ID), Name: fit.text(k.Name), Description: fit.text(k.Description),
		CreatedAt: parseTime(k.CreatedAt), ExpiresAt: k.expiresAt(),
	}
	if fit.unfit {
		reason = "answered a key whose id can't be one"
	}
	return key, reason
}

func (k platformKey) value() *upstream.Secret { return k.Value }

// expiresAt is the key's end as far as the answer tells it. Beside a token_jti, token_exp
// is the end of a token that the key was made with: in the one published example of an
// answer, about a key that was to live for two years, it is eight hours after a token_iat
// that precedes created_at by half an hour. For that reason created_at alone tells a
// key's begin.
func (k platformKey) expiresAt() time.Time {
	seconds, ok := tokenservice.WholeSeconds(k.TokenExp)
	if !ok || k.TokenJTI != "" {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
