// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"time"
)

// The identity and account of a key that is added without one.
const (
	defaultIAMID     = "IBMid-5500000000"
	defaultAccountID = "00000000000000000000000000000001"
)

// KeyOptions are the limits of a key, and what IAM knows of it.
type KeyOptions struct {
	// SingleUse makes the first exchange the last one.
	SingleUse bool
	// Life is how long the key is accepted, by the services' clock; 0 is forever.
	Life time.Duration
	// Name and Description are for people. Names need not be unique, but for the
	// platform's key API, which makes no second key of a name.
	Name, Description string
	// IAMID and AccountID are whose key it is; to the platform, IAMID is the user.
	// Without them it belongs to the one identity that all such keys share.
	IAMID, AccountID string
	// Locked keys can be neither changed nor deleted.
	Locked bool
	// ActionWhenLeaked is what IBM does with a key that it finds published: none,
	// disable or delete; empty is none.
	ActionWhenLeaked string
	// SupportSessions says that logins with the key are listed and can be revoked.
	SupportSessions bool
}

// keyState is what the services know of a key.
type keyState struct {
	KeyOptions
	id, value string
	// serial orders keys by when they were added.
	serial       int
	addedAt      time.Time
	deletedAt    time.Time
	entityTag    string
	createdByAPI bool
	// title and clientType are of the keys that the platform's key API made, which IAM
	// and its services know nothing of; there clientType is not empty.
	title, clientType string
	// madeWith is the token whose times the key is described with, nil for its own.
	madeWith *tokenClaims
	// bornAt is when the key was added by the services' clock, which may jump.
	bornAt   time.Time
	used     bool
	disabled bool
	// toggledAt is when disabled last changed.
	toggledAt time.Time
}

// KeyInfo is what a test may know of a key. It holds no secret.
type KeyInfo struct {
	// ID is the key API's id, which is in DELETE /v1/apikeys/{id}.
	ID string `json:"id"`
	// KeyID is Sim.KeyID of the key's value, as in IssuedToken.
	KeyID     string `json:"key_id"`
	Name      string `json:"name"`
	IAMID     string `json:"iam_id"`
	AccountID string `json:"account_id"`
	Locked    bool   `json:"locked"`
	Disabled  bool   `json:"disabled"`
	// CreatedByAPI tells the keys that the key API created from those that were added.
	CreatedByAPI bool      `json:"created_by_api"`
	CreatedAt    time.Time `json:"created_at"`
	// DeletedAt is zero as long as the key exists.
	DeletedAt time.Time `json:"deleted_at,omitzero"`
	// Description, ActionWhenLeaked and SupportSessions are the key's settings, and ExpiresAt its
	// end by the services' clock, zero for none.
	Description      string    `json:"description,omitempty"`
	ActionWhenLeaked string    `json:"action_when_leaked,omitempty"`
	SupportSessions  bool      `json:"support_sessions,omitempty"`
	ExpiresAt        time.Time `json:"expires_at,omitzero"`
	// Spent says that it was used up, or has come to its end by the services' clock.
	Spent bool `json:"spent"`
}

// Exists says whether the key is not deleted.
func (k KeyInfo) Exists() bool { return k.DeletedAt.IsZero() }

// AddKey makes a key acceptable, without limits.
func (s *Sim) AddKey(key string) { s.AddLimitedKey(key, KeyOptions{}) }

// AddLimitedKey makes a key acceptable within limits. A key that there was before
// is replaced.
func (s *Sim) AddLimitedKey(key string, limits KeyOptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addKey(key, limits)
}

// addKey wants the lock held.
func (s *Sim) addKey(key string, limits KeyOptions) *keyState {
	limits.Name = cmp.Or(limits.Name, "simulated")
	limits.IAMID = cmp.Or(limits.IAMID, defaultIAMID)
	limits.AccountID = cmp.Or(limits.AccountID, defaultAccountID)
	s.keySerial++
	now := time.Now()
	state := &keyState{
		KeyOptions: limits, id: "ApiKey-" + newID(), value: key, serial: s.keySerial,
		addedAt: now, bornAt: s.clock(),
	}
	state.retag()
	s.keys[key] = state
	return state
}

// retag marks a change of a key's details.
func (k *keyState) retag() { k.entityTag = "1-" + newID() }

// RevokeKey makes a key unknown, as if somebody else had deleted it. Tokens that were
// issued for it live on, as IBM's do.
func (s *Sim) RevokeKey(key string) {
	s.changeKey(key, func(k *keyState) { k.delete() })
}

// RevokeKeyID is RevokeKey for a key whose value nobody knows, by its id at IAM.
func (s *Sim) RevokeKeyID(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.keys {
		if state.id == id {
			state.delete()
		}
	}
}

func (k *keyState) delete() {
	if k.exists() {
		k.deletedAt = time.Now()
	}
}

// DisableKey makes a key known and unacceptable.
func (s *Sim) DisableKey(key string) { s.changeKey(key, func(k *keyState) { k.setDisabled(true) }) }

// setDisabled disables or enables a key.
func (k *keyState) setDisabled(disabled bool) {
	if k.disabled == disabled {
		return
	}
	k.disabled, k.toggledAt = disabled, time.Now()
	k.retag()
}

// EnableKey has a key that was disabled accepted again.
func (s *Sim) EnableKey(key string) {
	s.changeKey(key, func(k *keyState) { k.setDisabled(false) })
}

// LockKey keeps a key from being deleted through the key API.
func (s *Sim) LockKey(key string) { s.changeKey(key, func(k *keyState) { k.Locked = true }) }

// UnlockKey undoes LockKey.
func (s *Sim) UnlockKey(key string) { s.changeKey(key, func(k *keyState) { k.Locked = false }) }

func (s *Sim) changeKey(key string, change func(*keyState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.keys[key]; state != nil {
		change(state)
		state.retag()
	}
}

// Keys returns all keys that there are and were, oldest first. Several that were
// added with one value, one after the other, are the last of them.
func (s *Sim) Keys() []KeyInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make(map[int]KeyInfo, len(s.keys))
	now := s.clock()
	for value, k := range s.keys {
		infos[k.serial] = KeyInfo{
			ID: k.id, KeyID: s.KeyID(value), Spent: k.spent(now), Name: k.Name, IAMID: k.IAMID, AccountID: k.AccountID,
			Locked: k.Locked, Disabled: k.disabled, CreatedByAPI: k.createdByAPI,
			CreatedAt: k.addedAt, DeletedAt: k.deletedAt, ExpiresAt: k.endsAt(),
			Description: k.Description, ActionWhenLeaked: k.ActionWhenLeaked, SupportSessions: k.SupportSessions,
		}
	}
	var ordered []KeyInfo
	for _, serial := range slices.Sorted(maps.Keys(infos)) {
		ordered = append(ordered, infos[serial])
	}
	return ordered
}

// KeyID names a key without giving it away: it is a prefix of its SHA-256.
func (*Sim) KeyID(key string) string {
	digest := sha256.Sum256([]byte(key))
	return hex.EncodeToString(digest[:8])
}

// NewKeyValue makes a random key of the length and alphabet of IBM Cloud's.
func NewKeyValue() string {
	value := make([]byte, 33)
	_, _ = rand.Read(value) // It never fails; see crypto/rand.Read.
	return base64.RawURLEncoding.EncodeToString(value)
}

// keyVerdict is what becomes of a key that somebody wants to exchange.
type keyVerdict int

const (
	keyAccepted keyVerdict = iota
	keyUnknown
	keyDisabled
)

// useKey judges a key that is sent to a service, and uses it up if it is a
// single-use one.
func (s *Sim) useKey(service, key string) keyVerdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.seenAt(viewTokens)
	k := s.keys[key]
	switch {
	case k == nil, !k.existedAt(at), k.spent(s.clock()), k.isPlatforms() && service != platformName:
		return keyUnknown
	case k.disabledAt(at):
		return keyDisabled
	}
	k.used = true
	return keyAccepted
}

func (k *keyState) exists() bool { return k.deletedAt.IsZero() }

// isPlatforms says whether the platform's key API made the key.
func (k *keyState) isPlatforms() bool { return k.clientType != "" }

// endsAt is by the services' clock, and zero if the key has no end.
func (k *keyState) endsAt() time.Time {
	if k.Life <= 0 {
		return time.Time{}
	}
	return k.bornAt.Add(k.Life)
}

// spent wants the time by the services' clock.
func (k *keyState) spent(now time.Time) bool {
	return k.SingleUse && k.used || k.Life > 0 && !now.Before(k.endsAt())
}
