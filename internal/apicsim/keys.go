// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// identity is whom a key speaks for.
type identity struct {
	IAMID     string `json:"iam_id"`
	AccountID string `json:"account_id"`
}

// keyState is what the services know of a key.
type keyState struct {
	KeyOptions
	id, name, description, entityTag string

	owner   identity
	addedAt time.Time
	// knownAt and listedAt are from when on the token services and the lists have a
	// key that the key API made.
	knownAt, listedAt time.Time
	deletedAt         time.Time
	used              bool
	disabled          bool
	locked            bool
	made              bool
}

// KeyOptions are the limits of a key, and whose it is.
type KeyOptions struct {
	// SingleUse makes the first exchange the last one.
	SingleUse bool
	// Life is how long the key is accepted; 0 is forever.
	Life time.Duration
	// IAMID and AccountID are the key's identity at IAM; empty is one that all such
	// keys share.
	IAMID, AccountID string
}

// KeyInfo is what IAM knows of a key. It holds no secret.
type KeyInfo struct {
	// ID is IAM's id of the key, and KeyID is Sim.KeyID of its value.
	ID, KeyID, Name  string
	IAMID, AccountID string
	Locked, Disabled bool
	// CreatedByAPI says that the key was made through IAM's key API.
	CreatedByAPI bool
	CreatedAt    time.Time
	// DeletedAt is zero while IAM holds the key.
	DeletedAt time.Time
}

// AddKey makes a key acceptable, without limits.
func (s *Sim) AddKey(key string) { s.AddLimitedKey(key, KeyOptions{}) }

// AddLimitedKey makes a key acceptable within limits.
func (s *Sim) AddLimitedKey(key string, o KeyOptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key] = &keyState{
		KeyOptions: o, id: "ApiKey-" + newID(), name: "downloaded", entityTag: newID(), addedAt: time.Now(),
		owner: identity{cmp.Or(o.IAMID, "IBMid-simulated"), cmp.Or(o.AccountID, "simulated-account")},
	}
}

// RevokeKey deletes a key. Tokens that it bought live on, as IBM's do.
func (s *Sim) RevokeKey(key string) {
	s.changeKey(key, func(state *keyState) { state.deletedAt = time.Now() })
}

// RevokeKeyID is RevokeKey for a key whose value nobody knows, by IAM's id.
func (s *Sim) RevokeKeyID(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.keys {
		if state.id == id && state.deletedAt.IsZero() {
			state.deletedAt = time.Now()
		}
	}
}

// DisableKey makes a key known and unacceptable.
func (s *Sim) DisableKey(key string) {
	s.changeKey(key, func(state *keyState) { state.disabled = true })
}

// LockKey keeps a key from being deleted through the key API.
func (s *Sim) LockKey(key string) { s.changeKey(key, func(state *keyState) { state.locked = true }) }

// UnlockKey undoes LockKey.
func (s *Sim) UnlockKey(key string) { s.changeKey(key, func(state *keyState) { state.locked = false }) }

func (s *Sim) changeKey(key string, change func(*keyState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.keys[key]; state != nil {
		change(state)
	}
}

// SetKeyDelay has the token services refuse a key that the key API makes from now
// on, for so long after its creation.
func (s *Sim) SetKeyDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keyDelay = d
}

// SetListDelay has the key API's lists lack a key that it makes from now on, for so
// long after its creation.
func (s *Sim) SetListDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listDelay = d
}

// Keys returns what is known of every key ever, oldest first.
func (s *Sim) Keys() []KeyInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []KeyInfo
	for value, state := range s.keys {
		all = append(all, KeyInfo{
			ID: state.id, KeyID: s.KeyID(value), Name: state.name, IAMID: state.owner.IAMID, AccountID: state.owner.AccountID,
			Locked: state.locked, Disabled: state.disabled, CreatedByAPI: state.made, CreatedAt: state.addedAt, DeletedAt: state.deletedAt,
		})
	}
	slices.SortFunc(all, func(a, b KeyInfo) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return all
}

// KeyID names a key without giving it away: it is a prefix of its SHA-256.
func (*Sim) KeyID(key string) string {
	digest := sha256.Sum256([]byte(key))
	return hex.EncodeToString(digest[:8])
}

// keyVerdict is what becomes of a key that somebody wants to exchange.
type keyVerdict int

const (
	keyAccepted keyVerdict = iota
	keyUnknown
	keyDisabled
)

// useKey judges a key, and uses it up if it is a single-use one.
func (s *Sim) useKey(key string) keyVerdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.keys[key]
	switch {
	case state == nil, !state.deletedAt.IsZero(), time.Now().Before(state.knownAt):
		return keyUnknown
	case state.SingleUse && state.used, state.Life > 0 && time.Since(state.addedAt) >= state.Life:
		return keyUnknown
	case state.disabled:
		return keyDisabled
	}
	state.used = true
	return keyAccepted
}

// isKey says whether text is a key, accepted or not.
func (s *Sim) isKey(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[text] != nil
}
