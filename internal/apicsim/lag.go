// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"errors"
	"time"
)

// Lag is how far the parts of IAM, or of the platform, are behind what the key API did: until then, a
// created key is unknown to them, a deleted one is still there, and a disabled one
// still enabled. Keys that were added are known from the start.
type Lag struct {
	// Tokens is for the token services.
	Tokens time.Duration
	// List and Get are for GET /v1/apikeys, and for GET /v1/apikeys/{id} and /details,
	// and for the platform's.
	List, Get time.Duration
	// Delete is for the calls that change a key: its deletion, disabling and enabling.
	Delete time.Duration
	// Every is how many calls of one of these it takes to meet a part that lags: with
	// 2, every second one does, and with 0 or 1, all do.
	Every int
}

// SetLag counts for what was done already, too.
func (s *Sim) SetLag(lag Lag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = lag
	clear(s.viewCalls)
}

// view is a part of IAM that may lag on its own.
type view string

const (
	viewTokens view = "tokens"
	viewList   view = "list"
	viewGet    view = "get"
	viewDelete view = "delete"
)

func (l Lag) of(v view) time.Duration {
	return map[view]time.Duration{viewTokens: l.Tokens, viewList: l.List, viewGet: l.Get, viewDelete: l.Delete}[v]
}

// seenAt is the time whose state the next call of a view sees. The caller holds the
// lock.
func (s *Sim) seenAt(v view) time.Time {
	s.viewCalls[v]++
	if s.lag.Every > 1 && s.viewCalls[v]%s.lag.Every != 0 {
		return time.Now()
	}
	return time.Now().Add(-s.lag.of(v))
}

// existedAt says whether a key existed at a time. A key that was added, not created, has
// always existed.
func (k *keyState) existedAt(at time.Time) bool {
	if k.createdByAPI && k.addedAt.After(at) {
		return false
	}
	return k.exists() || k.deletedAt.After(at)
}

func (k *keyState) disabledAt(at time.Time) bool {
	if k.toggledAt.After(at) {
		return !k.disabled
	}
	return k.disabled
}

// lagJSON is a Lag whose durations are text; an empty one is none.
type lagJSON struct {
	Tokens string `json:"tokens"`
	List   string `json:"list"`
	Get    string `json:"get"`
	Delete string `json:"delete"`
	Every  int    `json:"every"`
}

// lag says what is wrong with a lag that came from another process.
func (read lagJSON) lag() (Lag, error) {
	lag := Lag{Every: read.Every}
	if lag.Every < 0 {
		return Lag{}, errors.New("every must not be negative")
	}
	for _, part := range []struct {
		name view
		text string
		into *time.Duration
	}{
		{viewTokens, read.Tokens, &lag.Tokens}, {viewList, read.List, &lag.List}, {viewGet, read.Get, &lag.Get}, {viewDelete, read.Delete, &lag.Delete},
	} {
		if err := readDuration(string(part.name), part.text, part.into); err != nil {
			return Lag{}, err
		}
	}
	return lag, nil
}
