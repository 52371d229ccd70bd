// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// Secret is a key's value. No format verb prints it.
type Secret = upstream.Secret

// Binding is where a key was made, or first used, and for whom. What is deleted is
// deleted there and nowhere else, whatever the config says by then.
type Binding struct {
	// Kind is what sort of issuer it is: empty for IBM Cloud IAM, KindPlatform for the
	// platform service of API Connect.
	Kind string `json:"kind,omitempty"`
	// Issuer is the address of the issuer, CACert the PEM bundle that it was trusted by,
	// empty for the system's roots.
	Issuer string `json:"issuer,omitempty"`
	CACert string `json:"ca_cert,omitempty"`
	// AccountID and Identity are the issuer's names for the account and the identity
	// that the key stands for.
	AccountID string `json:"account_id,omitempty"`
	Identity  string `json:"identity,omitempty"`
}

// KindPlatform is the Kind of a Binding whose issuer is API Connect's platform service.
const KindPlatform = "platform"

// isAt says whether both are of one address and trusted by the same CA. With a CA of
// their own, and a place on the network, somebody else answers at the same address.
func (b Binding) isAt(other Binding) bool {
	return b.Issuer == other.Issuer && b.CACert == other.CACert
}

// Of is the binding with the account and identity that a key has.
func (b Binding) Of(d Details) Binding {
	b.AccountID, b.Identity = d.AccountID, d.Identity
	return b
}

// Known says whether it was looked up at the issuer.
func (b Binding) Known() bool { return b.Identity != "" }

// Key is an API key and what the issuer said of it.
type Key struct {
	// Value is empty if nobody knows it: the key was created, and the answer lost.
	Value Secret `json:"value,omitempty"`
	// ID and Name are the issuer's. They and Binding are empty for an imported key that
	// was not looked up yet.
	ID      string  `json:"id,omitempty"`
	Name    string  `json:"name,omitempty"`
	Binding Binding `json:"binding"`
	// Managed says that rotation made it. Nobody else knows it, so that it is deleted
	// when it is no longer used. An imported key is not, unless rotation replaced it.
	Managed bool `json:"managed,omitempty"`
	// Spent says that a token was asked for with the key, in a record whose keys work
	// once. It is stored before.
	Spent bool `json:"spent,omitempty"`
	// Reusable says that it got more than one token, where keys may work once.
	Reusable bool `json:"reusable,omitempty"`
	// CreatedAt is by the issuer's clock, zero for an imported key that was not looked
	// up. ExpiresAt is too, zero for a key without an end, or with one that nobody knows.
	CreatedAt time.Time `json:"created_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// Elsewhere are the bindings of other addresses at which an issuer has described this
	// same key. It may act there, but what is deleted of it is deleted where it was bound.
	Elsewhere []Binding `json:"elsewhere,omitempty"`
}

// mayAct says whether a key has rights over keys of a binding: those of the same
// identity of the same account, at an address where it was seen, trusted by the same
// CA. It is sent to no other. A key whose own binding is not known has none.
func (k Key) mayAct(on Binding) bool {
	return k.Binding.Known() && (k.Binding == on || slices.Contains(k.Elsewhere, on))
}

// Intent is a creation that may have happened. It is stored before the issuer is
// asked, and until it is known what came of it.
type Intent struct {
	// Token is the unique part of the name that the key was asked for with.
	Token   string  `json:"token"`
	Binding Binding `json:"binding"`
	// Since is by the issuer's clock, for people to read. Nothing is judged by it.
	Since time.Time `json:"since"`
}

// Retired is a key that is no longer used, with what it takes to delete it.
type Retired struct {
	Key
	// Grace is how long it is to live on. DeleteAfter is when that ends, by the issuer's
	// clock; it is zero until the issuer was asked for the time, and where there is no grace.
	Grace       time.Duration `json:"grace,omitempty"`
	DeleteAfter time.Time     `json:"delete_after,omitzero"`
	// Disabled says that it was disabled at the issuer, half-way through its grace.
	Disabled bool `json:"disabled,omitempty"`
	// Condemned says that its deletion is decided and may be under way: nobody may take
	// the key any more.
	Condemned bool `json:"condemned,omitempty"`
	// Keep says that it is not to be deleted: it was imported, and is kept only as long
	// as others can be deleted with no key but this.
	Keep bool `json:"keep,omitempty"`
	// Bearer is a token that may delete it where that takes a token, and the record's own
	// may be of somebody else.
	Bearer *Token `json:"bearer,omitempty"`
}

// isLost says whether all that is known is the beginning of its name: it may have been
// made, and is to be looked for.
func (r Retired) isLost() bool { return r.ID == "" && !r.Keep }

// DisableAfter is half-way through the grace period, by the issuer's clock. It is zero
// where there is none, or it has not begun.
func (r Retired) DisableAfter() time.Time {
	if r.Grace <= 0 || r.DeleteAfter.IsZero() {
		return time.Time{}
	}
	return r.DeleteAfter.Add(-r.Grace / 2)
}

// Record is all that is known of one config's keys. It is part of the config's stored
// entry, and after the config's deletion the whole of its tombstone.
type Record struct {
	// UID is chosen at random when the config is created. It is part of the names of the
	// keys made for it, so that those which it does not know are seen.
	UID    string `json:"uid"`
	Config string `json:"config"`
	// Current is the key that tokens are got with. It is nil in a tombstone only.
	Current   *Key    `json:"current,omitempty"`
	Candidate *Key    `json:"candidate,omitempty"`
	Intent    *Intent `json:"intent,omitempty"`
	// Grace is the grace period that the rotation under way was asked for with, nil for
	// the config's own.
	Grace   *time.Duration `json:"grace,omitempty"`
	Retired []Retired      `json:"retired,omitempty"`
	// Token is the current token of a record whose keys work once. It makes the next key,
	// and deletes those before.
	Token *Token `json:"token,omitempty"`
	// Brief says that keys were found not to live for long, where the issuer does not tell
	// their end.
	Brief bool `json:"brief,omitempty"`
}

// New returns the record of a config that is created with an imported key.
func New(config string, value Secret) Record {
	return Record{UID: newUID(), Config: config, Current: &Key{Value: value}}
}

// NewTombstone is a name for the record's tombstone that no other deletion has given to one: a
// removal of that one which lands late takes nothing of this one.
func (r Record) NewTombstone() string { return r.UID + "-" + newUID() }

// newUID returns 13 random characters of a base of 32, 65 bits.
func newUID() string { return strings.ToLower(rand.Text()[:13]) }

// Empty says whether nothing is left of a tombstone.
func (r Record) Empty() bool {
	return r.Current == nil && r.Candidate == nil && r.Intent == nil && len(r.Retired) == 0
}

// ErrCondemned says that the key is being deleted at its issuer.
var ErrCondemned = errors.New("the api key was replaced by a rotation and is being deleted at its issuer; write another one")

// clone returns a copy that shares no memory with r that a change could touch.
func (r Record) clone() Record {
	r.Retired = slices.Clone(r.Retired)
	return r
}

// Equal says whether both hold the same.
func (r Record) Equal(other Record) bool {
	return r.UID == other.UID && r.Config == other.Config &&
		equal(r.Current, other.Current, Key.equal) && equal(r.Candidate, other.Candidate, Key.equal) &&
		equal(r.Intent, other.Intent, Intent.equal) &&
		equal(r.Grace, other.Grace, func(a, b time.Duration) bool { return a == b }) &&
		equal(r.Token, other.Token, Token.equal) && r.Brief == other.Brief &&
		slices.EqualFunc(r.Retired, other.Retired, Retired.equal)
}

func equal[T any](a, b *T, same func(a, b T) bool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return same(*a, *b)
}

func (k Key) equal(other Key) bool {
	return k.Value == other.Value && k.ID == other.ID && k.Name == other.Name && k.Binding == other.Binding &&
		k.Managed == other.Managed && k.CreatedAt.Equal(other.CreatedAt) && k.ExpiresAt.Equal(other.ExpiresAt) &&
		k.Spent == other.Spent && k.Reusable == other.Reusable && slices.Equal(k.Elsewhere, other.Elsewhere)
}

func (i Intent) equal(other Intent) bool {
	return i.Token == other.Token && i.Binding == other.Binding && i.Since.Equal(other.Since)
}

func (r Retired) equal(other Retired) bool {
	return r.Key.equal(other.Key) && r.Grace == other.Grace && r.DeleteAfter.Equal(other.DeleteAfter) &&
		r.Disabled == other.Disabled && r.Condemned == other.Condemned && r.Keep == other.Keep &&
		equal(r.Bearer, other.Bearer, Token.equal)
}

// Names of the keys that are made: the unique parts come first, for issuers shorten
// names.
const namePrefix = "vault-apic-"

func (r Record) prefix() string { return namePrefix + r.UID + "-" }

func (r Record) namePrefixOf(i Intent) string { return r.prefix() + i.Token }

func (r Record) nameOf(i Intent) string { return r.namePrefixOf(i) + "-" + r.Config }

// knows says whether a key of an issuer's is one of the record's, by its id: an issuer may
// have several addresses.
func (r Record) knows(id string) bool {
	is := func(k *Key) bool { return k.ID != "" && k.ID == id }
	return slices.ContainsFunc(r.unretired(), is) || slices.ContainsFunc(r.Retired, func(k Retired) bool { return is(&k.Key) })
}

// isSame says whether both are the same entry of a record, whatever became of it.
func (r Retired) isSame(other Retired) bool {
	return r.ID == other.ID && r.Name == other.Name && r.Binding.isAt(other.Binding) && r.Value == other.Value
}

// replace returns the record with one of its retired keys changed.
func (r Record) replace(key Retired) Record {
	r = r.clone()
	if i := slices.IndexFunc(r.Retired, key.isSame); i >= 0 {
		r.Retired[i] = key
	}
	return r
}

// without returns the record without one of its retired keys, and without what was kept
// for that one alone.
func (r Record) without(key Retired) Record {
	r.Retired = slices.DeleteFunc(slices.Clone(r.Retired), key.isSame)
	return r.tidy()
}

// isNeeded says whether a retired key is one of those that give the right to delete
// others, or to look for them: those whose own value is not known or can't be used. The
// current key gives that right too, if it may act on them.
func (r Record) isNeeded(key Retired) bool {
	if key.Value == "" || key.Disabled || key.Binding.Kind == KindPlatform {
		return false
	}
	needs := func(of Binding) bool {
		return key.mayAct(of) && (r.Current == nil || !r.Current.mayAct(of))
	}
	return r.Intent != nil && needs(r.Intent.Binding) ||
		slices.ContainsFunc(r.Retired, func(other Retired) bool { return other.dependsOnOthers() && needs(other.Binding) })
}

func (r Retired) dependsOnOthers() bool { return !r.Keep && (r.Value == "" || r.Disabled) }

// tidy drops what is kept and no longer needed.
func (r Record) tidy() Record {
	kept := r.clone()
	kept.Retired = slices.DeleteFunc(kept.Retired, func(k Retired) bool { return k.Keep && !r.isNeeded(k) })
	return kept
}

// unretired are the current key and the candidate, those that there are.
func (r Record) unretired() []*Key {
	return slices.DeleteFunc([]*Key{r.Current, r.Candidate}, func(k *Key) bool { return k == nil })
}

// held returns the values of the keys that nobody else may delete.
func (r Record) held() []Secret {
	var values []Secret
	for _, k := range r.unretired() {
		values = append(values, k.Value)
	}
	for _, k := range r.Retired {
		if r.isNeeded(k) {
			values = append(values, k.Value)
		}
	}
	return values
}

// values are those of all keys and tokens that the record knows.
func (r Record) values() []Secret {
	values := r.KeyValues()
	for _, k := range r.Retired {
		if k.Bearer != nil {
			values = append(values, k.Bearer.Value)
		}
	}
	if r.Token != nil {
		values = append(values, r.Token.Value)
	}
	return values
}

// KeyValues are the values of all keys.
func (r Record) KeyValues() (values []Secret) {
	for _, k := range r.unretired() {
		values = append(values, k.Value)
	}
	for _, k := range r.Retired {
		values = append(values, k.Value)
	}
	return values
}
