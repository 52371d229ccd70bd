// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"slices"
	"time"
)

// Import returns the record after an operator wrote a key. A managed key that is
// replaced lives on for grace; an imported one is kept. A retired key can be
// taken back until its deletion is decided; then it is refused with ErrCondemned.
func (r Record) Import(value Secret, grace time.Duration) (Record, error) {
	if r.Current != nil && r.Current.Value == value {
		return r, nil
	}
	next := r.clone()
	imported := Key{Value: value}
	is := func(k Retired) bool { return k.Value == value }
	if i := slices.IndexFunc(next.Retired, is); i >= 0 {
		if next.Retired[i].Condemned {
			return r, ErrCondemned
		}
		imported = next.Retired[i].Key
		next.Retired = slices.Delete(next.Retired, i, i+1)
	}
	if c := next.Candidate; c != nil && c.Value == value {
		imported, next.Candidate = *c, nil
	}
	next = next.putAway(grace)
	next.Current = &imported
	return next.tidy(), nil
}

// Bury returns the tombstone of a config that is deleted. It is Empty if the config
// leaves nothing behind.
func (r Record) Bury() Record { return r.clone().putAway(0).tidy() }

// putAway retires the current key and the candidate.
func (r Record) putAway(grace time.Duration) Record {
	if c := r.Candidate; c != nil {
		r.Retired = append(r.Retired, Retired{Key: *c})
	}
	if c := r.Current; c != nil && c.Managed {
		r.Retired = append(r.Retired, Retired{Key: *c, Grace: grace})
	} else if c != nil {
		r.Retired = append(r.Retired, Retired{Key: *c, Keep: true})
	}
	r.Current, r.Candidate, r.Grace, r.Brief = nil, nil, nil, false
	return r.lendToken()
}

// lendToken leaves the current token to the keys that it may delete. The record gets
// another one, which may be of somebody else, or none.
func (r Record) lendToken() Record {
	for i, k := range r.Retired {
		if k.Binding.Kind == KindPlatform && k.Bearer == nil {
			r.Retired[i].Bearer = r.Token
		}
	}
	r.Token = nil
	return r
}

// WithoutToken returns the record without a current token, which is for no other address than
// the one it came from.
func (r Record) WithoutToken() Record { return r.clone().lendToken() }

// WithToken returns the record of which somebody has used the current key to get a token.
func (r Record) WithToken(t Token) Record {
	next := r.clone().lendToken()
	current := *next.Current
	current.Spent = true
	next.Current, next.Token = &current, &t
	return next
}

// WithTimes returns the record with what the issuer says about when its current key was made and
// when it ends, zero for never.
func (r Record) WithTimes(created, expires time.Time) Record {
	next, current := r.clone(), *r.Current
	current.CreatedAt, current.ExpiresAt = created, expires
	next.Current = &current
	return next
}
