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

// NewLease dates a token that was bought just now. refreshBefore is as in Options.
func NewLease(token *tokenservice.Token, refreshBefore time.Duration) *Lease {
	return (&Lease{Token: token, BoughtAt: time.Now()}).shared(refreshBefore)
}

// shared returns a copy that nobody has read yet, due as refreshBefore demands.
// The replacement leads by a random twentieth to tenth of the time until then, so
// that configs written together are not all renewed in the same second.
func (l *Lease) shared(refreshBefore time.Duration) *Lease {
	life := l.life()
	if refreshBefore == 0 {
		refreshBefore = life / 4
	}
	refreshBefore = max(refreshBefore, time.Second) // A ttl is rounded up to the next one.
	due := l.ExpiresAt.Add(-min(refreshBefore, life/2))
	lead := min(due.Sub(l.BoughtAt)/10, maxLead)
	lead -= rand.N(lead/2 + 1)
	return &Lease{Token: l.Token, BoughtAt: l.BoughtAt, DueAt: due, refreshAt: due.Add(-lead)}
}

func (l *Lease) life() time.Duration { return l.ExpiresAt.Sub(l.BoughtAt) }

// enough returns a *TooShortError if even a new token of this kind lives for less
// than least.
func (l *Lease) enough(least time.Duration) error {
	if life := l.life(); life < least {
		return &TooShortError{Life: life, Least: least}
	}
	return nil
}

// fresh says whether a reader may have the token without a second thought.
func (l *Lease) fresh(now time.Time, least time.Duration) bool {
	return now.Before(l.DueAt) && l.ExpiresAt.Sub(now) >= least
}

// presentable says whether a reader may have the token if there is no newer one.
func (l *Lease) presentable(now time.Time, least time.Duration) bool {
	return now.Before(l.lastCall()) && l.ExpiresAt.Sub(now) >= least
}

// lastCall is when the token is too close to its end to be handed out any more.
func (l *Lease) lastCall() time.Time {
	return l.ExpiresAt.Add(-min(expiryMargin, l.life()/10))
}

// TTL is the whole seconds, rounded up, until a reader gets a newer token. It is
// at least 1, because Vault Agent takes 0 for a failure.
func (l *Lease) TTL(now time.Time) int64 { return max(seconds(l.DueAt.Sub(now)), 1) }

// RotationPeriod is the seconds, rounded, between this token's purchase and its
// replacement, at least 1.
func (l *Lease) RotationPeriod() int64 {
	return max(int64(l.DueAt.Sub(l.BoughtAt).Round(time.Second)/time.Second), 1)
}
