// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"math/rand/v2"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

// maxLead is the longest that a background replacement runs ahead of DueAt.
const maxLead = time.Minute

// NewIssuedToken dates a token that was issued just now. refreshBefore is as in Options.
func NewIssuedToken(token *tokenservice.Token, refreshBefore time.Duration) *IssuedToken {
	return NewIssuedTokenSince(time.Now(), token, refreshBefore)
}

// NewIssuedTokenSince is NewIssuedToken for a token that was got at that time.
func NewIssuedTokenSince(issuedAt time.Time, token *tokenservice.Token, refreshBefore time.Duration) *IssuedToken {
	return (&IssuedToken{Token: *token, IssuedAt: issuedAt, tokenLife: token.ExpiresAt.Sub(issuedAt)}).unread(refreshBefore)
}

// unread returns a copy that nobody has read yet, due as refreshBefore demands.
// The replacement leads by a random twentieth to tenth of the time until then, so
// that configs written together are not all renewed in the same second.
func (t *IssuedToken) unread(refreshBefore time.Duration) *IssuedToken {
	life := t.life()
	if refreshBefore == 0 {
		refreshBefore = life / 4
	}
	refreshBefore = max(refreshBefore, time.Second) // A ttl is rounded up to the next one.
	due := t.ExpiresAt.Add(-min(refreshBefore, life/2))
	lead := min(due.Sub(t.IssuedAt)/10, maxLead)
	lead -= rand.N(lead/2 + 1)
	return &IssuedToken{Token: t.Token, IssuedAt: t.IssuedAt, DueAt: due, lead: lead, tokenLife: t.tokenLife}
}

func (t *IssuedToken) refreshAt() time.Time { return t.DueAt.Add(-t.lead) }

func (t *IssuedToken) life() time.Duration { return t.ExpiresAt.Sub(t.IssuedAt) }

// follow takes note of the token that was shared before. If the service returned the same
// token again, or one that ends no later, its life counts from when it was first issued.
func (t *IssuedToken) follow(previous *IssuedToken) {
	if previous != nil && (t.ID == previous.ID || !t.ExpiresAt.After(previous.ExpiresAt)) {
		t.tokenLife = previous.tokenLife + t.ExpiresAt.Sub(previous.ExpiresAt)
	}
}

// longestMinTTL is the most that readers of the shared token may ask for. A token
// that is replaced as soon as it has less has used up a tenth of its life, so that
// readers cause ten exchanges in a token's life at most.
func (t *IssuedToken) longestMinTTL() time.Duration { return t.tokenLife * 9 / 10 }

// promise returns a *TooShortError if a reader asks for what it cannot be promised,
// or for what would take another exchange less than a tenth of a life after this one,
// from a service that hands out the same token again.
func (t *IssuedToken) promise(now time.Time, minTTL time.Duration) error {
	if longest := t.longestMinTTL(); minTTL > longest {
		return tooShort(minTTL, longest, "nine tenths of the life of the service's tokens")
	}
	if left := t.ExpiresAt.Sub(now); left < minTTL && now.Sub(t.IssuedAt) < t.tokenLife/10 {
		return tooShort(minTTL, left, "what is left of the token that the service hands out at present")
	}
	return nil
}

// outlives returns a *TooShortError if even a new token of this kind lives for less
// than minTTL.
func (t *IssuedToken) outlives(minTTL time.Duration) error {
	if life := t.tokenLife; life < minTTL {
		return tooShort(minTTL, life, "the life of the service's tokens")
	}
	return nil
}

// fresh says whether a reader may have the token without a second thought.
func (t *IssuedToken) fresh(now time.Time, minTTL time.Duration) bool {
	return minTTL <= t.longestMinTTL() && now.Before(t.DueAt) && t.ExpiresAt.Sub(now) >= minTTL
}

// usable says whether a reader may have the token if there is no newer one.
func (t *IssuedToken) usable(now time.Time, minTTL time.Duration) bool {
	return now.Before(t.serveUntil()) && t.ExpiresAt.Sub(now) >= minTTL
}

// serveUntil is when the token is too close to its end to be handed out any more.
func (t *IssuedToken) serveUntil() time.Time {
	return t.ExpiresAt.Add(-min(expiryMargin, t.life()/10))
}

// TTL is the whole seconds, rounded up, until a reader gets a newer token. It is
// at least 1, because Vault Agent takes 0 for a failure.
func (t *IssuedToken) TTL(now time.Time) int64 { return max(seconds(t.DueAt.Sub(now)), 1) }

// RotationPeriod is the whole seconds, rounded up, between this token's exchange and its
// replacement, at least 1. The TTL is never above it, as consumers of rotated
// credentials expect.
func (t *IssuedToken) RotationPeriod() int64 { return max(seconds(t.DueAt.Sub(t.IssuedAt)), 1) }
