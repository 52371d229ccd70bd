// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// grant is the answer of the services that speak OAuth: iam and platform.
type grant struct {
	accessToken string
	// expiresAt is the end that the answer states beside the token, or zero.
	expiresAt time.Time
}

// redeem makes a token of an answer that is a grant.
func (c *caller) redeem(a *upstream.Answer, secrets ...upstream.Secret) (*Token, error) {
	// Counted from the request, a stated life ends too early rather than too late.
	g, reason := parseGrant(a.Body, a.Asked)
	if reason != "" {
		return nil, c.InvalidResponse(a, reason)
	}
	return c.accept(a, g.accessToken, g.expiresAt, secrets...)
}

// parseGrant returns an answer's token, or what is wrong with the answer. What it
// states about the token's life counts only where the token is silent, so that
// an invalid value there is not an error yet.
func parseGrant(body []byte, now time.Time) (g grant, reason string) {
	var parsed struct {
		AccessToken *string         `json:"access_token"`
		TokenType   *string         `json:"token_type"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
		Expiration  json.RawMessage `json:"expiration"`
	}
	if reason := upstream.Decode(body, &parsed, tokenShape); reason != "" {
		return g, reason
	}
	if parsed.AccessToken == nil || *parsed.AccessToken == "" {
		return g, "answered without a token"
	}
	if parsed.TokenType != nil && !strings.EqualFold(*parsed.TokenType, "Bearer") {
		return g, "answered a token of another type than Bearer"
	}
	g.accessToken = *parsed.AccessToken
	if seconds, ok := WholeSeconds(parsed.ExpiresIn); ok {
		g.expiresAt = now.Add(time.Duration(seconds) * time.Second)
	} else if epoch, ok := WholeSeconds(parsed.Expiration); ok {
		g.expiresAt = time.Unix(epoch, 0)
	}
	return g, ""
}

// WholeSeconds reads a positive JSON integer of sensible size: a life, or a time since
// the epoch.
func WholeSeconds(raw json.RawMessage) (int64, bool) {
	const most = 1 << 33 // As an epoch this is in the year 2242, as a life 272 years.
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return n, err == nil && n > 0 && n < most
}
