// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// defaultPlatformKeyLife is the cloud setting api_key_expires_in as it is shipped.
const defaultPlatformKeyLife = 5 * time.Minute

// PlatformKeys is what the platform makes of the keys that its API is asked for. The
// zero value has keys of five minutes that may be used many times.
type PlatformKeys struct {
	// SingleUse has a created key accepted once (the cloud setting
	// api_key_multiple_uses).
	SingleUse bool
	// Life is how long a created key lives whose ttl is not granted (the cloud setting
	// api_key_expires_in); 0 is five minutes.
	Life time.Duration
	// MaxTTL is the longest ttl that is granted, and what a longer one becomes; with 0 the
	// platform ignores the ttl.
	MaxTTL time.Duration
	// TokenTimes has a created key described with the times of the token that it was
	// created with, beside that token's id, as in the one published example of an
	// answer. Without, token_iat and token_exp are the key's own.
	TokenTimes bool
	// Refuse is the status that creations are refused with; 0 refuses none.
	Refuse int
}

// SetPlatformKeys counts for the keys that are created from now on.
func (s *Sim) SetPlatformKeys(keys PlatformKeys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platformKeys = keys
}

// granted is how long a key lives whose creator asks for ttl, or for none with 0.
func (p PlatformKeys) granted(ttl time.Duration) time.Duration {
	if ttl > 0 && p.MaxTTL > 0 {
		return min(ttl, p.MaxTTL)
	}
	return cmp.Or(p.Life, defaultPlatformKeyLife)
}

// platformKeysJSON is a PlatformKeys whose durations are text; an empty one is zero.
type platformKeysJSON struct {
	SingleUse  bool   `json:"single_use"`
	Life       string `json:"life"`
	MaxTTL     string `json:"max_ttl"`
	TokenTimes bool   `json:"token_times"`
	Refuse     int    `json:"refuse"`
}

// platformKeys says what is wrong with settings that came from another process.
func (read platformKeysJSON) platformKeys() (PlatformKeys, error) {
	keys := PlatformKeys{SingleUse: read.SingleUse, TokenTimes: read.TokenTimes, Refuse: read.Refuse}
	if keys.Refuse != 0 && (keys.Refuse < 400 || keys.Refuse > 599) {
		return PlatformKeys{}, errors.New("refuse must be from 400 to 599")
	}
	for _, field := range []struct {
		name, text string
		into       *time.Duration
	}{{"life", read.Life, &keys.Life}, {"max_ttl", read.MaxTTL, &keys.MaxTTL}} {
		if err := readDuration(field.name, field.text, field.into); err != nil {
			return PlatformKeys{}, err
		}
	}
	return keys, nil
}

// readDuration leaves into as it is if the text is empty.
func readDuration(name, text string, into *time.Duration) error {
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%s must be a duration such as 5s", name)
	}
	*into = d
	return nil
}
