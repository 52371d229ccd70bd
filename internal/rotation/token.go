// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"time"
)

// Token is a token that stays with a record. The times are those of the host's clock.
type Token struct {
	Value Secret `json:"value"`
	// ID is what readers are told of it.
	ID string `json:"id,omitempty"`
	// At is where it came from, and the only place that it is sent to.
	At Binding `json:"at"`
	// IssuedAt is when it was got, DueAt when readers are to get another one, and ExpiresAt
	// the end of its life.
	IssuedAt  time.Time `json:"issued_at"`
	DueAt     time.Time `json:"due_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

func (t Token) equal(other Token) bool {
	return t.Value == other.Value && t.ID == other.ID && t.At == other.At &&
		t.IssuedAt.Equal(other.IssuedAt) && t.DueAt.Equal(other.DueAt) && t.ExpiresAt.Equal(other.ExpiresAt)
}

// Lives says whether there is a token, and it is good for a call.
func (t *Token) Lives() bool { return t != nil && time.Now().Before(t.ExpiresAt) }

// isDue says whether readers are to get another token.
func (t *Token) isDue() bool { return !t.Lives() || !time.Now().Before(t.DueAt) }

// isNearEnd says whether more than half of the time has passed in which another token could
// be got.
func (t *Token) isNearEnd() bool {
	return !t.Lives() || time.Until(t.ExpiresAt) < t.ExpiresAt.Sub(t.DueAt)/2
}

// life is how long the token lives, all in all.
func (t *Token) life() time.Duration { return t.ExpiresAt.Sub(t.IssuedAt) }

// wantedToken is a token that somebody waits for.
type wantedToken struct {
	// dedicated says that nobody else is to get it; else it is the next one of all readers,
	// who have the one called have.
	dedicated bool
	have      string
}

// isToReplace says whether readers ask for a token other than the present one, which they have.
func (w *wantedToken) isToReplace(present *Token) bool {
	return w != nil && !w.dedicated && present != nil && present.ID == w.have
}

// Renew gets a token for a record whose keys work once. For readers that is the one which
// follows the token called have; a dedicated one is nobody else's. When ctx ends first, the
// error is a *GoesOnError.
func (e *Engine) Renew(ctx context.Context, ref Ref, have string, dedicated bool) (Token, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	for {
		out := e.advance(ctx, ref, want{token: &wantedToken{dedicated: dedicated, have: have}})
		if out.token != nil {
			return *out.token, nil
		}
		if out.err != nil && out.waiting == nil {
			return Token{}, out.err
		}
		if !out.awaitNext(ctx) {
			return Token{}, &GoesOnError{Ref: ref, What: "the renewal", Waiting: out.waiting}
		}
	}
}
