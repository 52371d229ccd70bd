// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import "time"

// expiryLead is the longest time before its end that a key is replaced for that.
const expiryLead = 14 * 24 * time.Hour

// successorOf is a key with the present one's settings, or why there can be none. A rotation must
// not weaken a key: one that ends after a while has a successor that ends after as long.
func (a *advance) successorOf(at Binding, present Details, session Session) (NewKey, error) {
	if present.NotCarried != "" {
		return NewKey{}, refusef("the successor of the api key of %s could not be given the same %s; change that at the issuer, then rotate", a.ref, present.NotCarried)
	}
	successor := NewKey{Of: at, Like: present}
	if present.ExpiresAt.IsZero() {
		return successor, nil
	}
	successor.TTL = present.ExpiresAt.Sub(createdAt(present, session))
	if successor.TTL <= 0 {
		return NewKey{}, refusef("the issuer says that the api key of %s ends before it was made, so that nobody knows how long its successor is to live; look at it there", a.ref)
	}
	return successor, nil
}

// weakened is why a new key is not what was asked for, or nil. What a platform is asked for is
// a wish.
func (a *advance) weakened(made Details, asked NewKey) error {
	if asked.Of.Kind == KindPlatform {
		return nil
	}
	setting := ""
	switch {
	case asked.TTL > 0 && (made.ExpiresAt.IsZero() || made.CreatedAt.Add(asked.TTL+clockSlack).Before(made.ExpiresAt)):
		setting = "expires_at"
	case asked.Like.guardsLeaks() && made.ActionWhenLeaked != asked.Like.ActionWhenLeaked:
		setting = "action_when_leaked"
	case asked.Like.SupportSessions && !made.SupportSessions:
		setting = "support_sessions"
	default:
		return nil
	}
	return refusef("the issuer has made the successor of the api key of %s without its %s; the successor is deleted and the present key stays; ask the account's administrator whether keys may have that", a.ref, setting)
}

// guardsLeaks says whether something is done about the key when it is found published.
func (d Details) guardsLeaks() bool { return d.ActionWhenLeaked != "" && d.ActionWhenLeaked != "none" }

// ReplaceBy is when a key is to be replaced at the latest because it ends, by the issuer's clock:
// when a quarter of its life is left, and two weeks at most. It is zero for a key without an
// end.
func (k Key) ReplaceBy() time.Time {
	if k.ExpiresAt.IsZero() {
		return time.Time{}
	}
	lead := expiryLead
	if !k.CreatedAt.IsZero() {
		lead = min(lead, k.ExpiresAt.Sub(k.CreatedAt)/4)
	}
	return k.ExpiresAt.Add(-lead)
}
