// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// What is here knows with whom a reader shares a token: with all others, or, with
// cache=entity, with those of the same Vault entity. An entity is a request's EntityID.

// read returns the token that the readers of an entity share, which is empty for those
// without one.
func (e *entry) read(ctx context.Context, entity string, minTTL time.Duration) (tokensource.Response, error) {
	if e.entities == nil || entity == "" {
		return e.source.Read(ctx, minTTL)
	}
	return e.entities.Read(ctx, entity, minTTL)
}

// tryKey gets a token with the entry's key. The readers of the entity that asks for it
// share it from then on, or all readers if they share one token.
func (e *entry) tryKey(ctx context.Context, entity string) error {
	if e.entities == nil || entity == "" {
		return e.source.Replace(ctx)
	}
	return e.entities.Replace(ctx, entity)
}

// drop ends the sharing of the token called id.
func (e *entry) drop(id string) {
	e.source.Drop(id)
	if e.entities != nil {
		e.entities.Drop(id)
	}
}

// inherit takes over the tokens of the entry that e replaces.
func (e *entry) inherit(predecessor *entry) {
	e.source.DropNoSoonerThan(predecessor.source)
	if e.keepsTokens && e.entities != nil && predecessor.entities != nil {
		e.entities.TakeOver(predecessor.entities)
	}
}

// tokensInMemory is what is told of the tokens that readers share.
type tokensInMemory struct {
	// newest is the one that was issued last, or nil if there is none that lives.
	newest *tokensource.IssuedToken
	// byEntity says that there is one for each Vault entity, and entities how many have
	// one that lives.
	byEntity bool
	entities int
}

func (e *entry) tokens() tokensInMemory {
	told := tokensInMemory{newest: e.source.Current()}
	if e.entities == nil {
		return told
	}
	told.byEntity = true
	var newest *tokensource.IssuedToken
	told.entities, newest = e.entities.Tokens()
	if told.newest == nil || newest != nil && newest.IssuedAt.After(told.newest.IssuedAt) {
		told.newest = newest
	}
	return told
}
