// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// keyShape is what an answer's JSON is compared with in errors, listShape a list's.
	keyShape  = "an API key's"
	listShape = "a list of API keys"
	// withoutList is what is wrong with an answer that is no list.
	withoutList = "answered without a list of API keys"

	// maxValueBytes is far beyond the 44 bytes that IBM Cloud's keys have.
	maxValueBytes = 4096
)

// identifier is the form of IAM's ids of keys, identities and accounts, and of the
// platform's UUIDs, with room for others: ApiKey-<UUID>, IBMid-<digits>,
// iam-ServiceId-<UUID>, 32 hex digits.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$`)

// screen lets through what of an answer is fit for requests, logs and storage.
type screen struct {
	secrets []upstream.Secret
	// unfit says that an id was held back.
	unfit bool
}

// newScreen holds back the secrets, and the value of a key if there is one.
func newScreen(value *upstream.Secret, secrets []upstream.Secret) *screen {
	if value != nil {
		secrets = append(slices.Clip(secrets), *value)
	}
	return &screen{secrets: secrets}
}

// id returns an id, or nothing for what can't be one.
func (s *screen) id(id string) string {
	if !identifier.MatchString(id) || upstream.HoldsAny(id, s.secrets...) {
		s.unfit = true
		return ""
	}
	return id
}

// text returns a text, or nothing for one that gives a secret away.
func (s *screen) text(text string) string {
	if upstream.HoldsAny(text, s.secrets...) {
		return ""
	}
	return text
}

// describer is a key in an issuer's JSON.
type describer interface {
	// key returns what is fit to keep of the key, without its value and the secrets, or
	// what is wrong with it.
	key(secrets []upstream.Secret) (rotation.Details, string)
	// value is the key's value, nil where the answer has none.
	value() *upstream.Secret
}

// oneKey returns the key that an answer describes, or what is wrong with it.
func oneKey[T describer](body []byte, secrets ...upstream.Secret) (key rotation.Details, reason string) {
	var parsed T
	if reason := upstream.Decode(body, &parsed, keyShape); reason != "" {
		return rotation.Details{}, reason
	}
	if key, reason = parsed.key(secrets); reason != "" {
		return rotation.Details{}, reason
	}
	return key, ""
}

// newKey is oneKey for the one answer that has to hold the key's value. What can be
// told of the key is told even if something is wrong with the answer: a key whose id is
// known can be deleted.
func newKey[T describer](body []byte, secrets ...upstream.Secret) (key rotation.Details, value upstream.Secret, reason string) {
	var parsed T
	// Of JSON in another shape, the fields that fit are filled all the same.
	reason = upstream.Decode(body, &parsed, keyShape)
	if stated := parsed.value(); stated != nil {
		value = *stated
	}
	key, unfit := parsed.key(secrets)
	reason = cmp.Or(reason, unfit)
	switch {
	case value == "":
		reason = cmp.Or(reason, "answered without the key's value")
	case len(value) > maxValueBytes || strings.ContainsFunc(string(value), notInValue):
		value = ""
		reason = cmp.Or(reason, "answered a key whose value can't be one")
	}
	if key.ID == "" {
		return rotation.Details{}, "", reason
	}
	return key, value, reason
}

func notInValue(r rune) bool { return r > unicode.MaxASCII || !unicode.IsGraphic(r) || r == ' ' }

// keysOf returns the keys of a list, or what is wrong with one of them.
func keysOf[T describer](list []T, secrets []upstream.Secret) (keys []rotation.Details, reason string) {
	for _, listed := range list {
		key, reason := listed.key(secrets)
		if reason != "" {
			return nil, reason
		}
		keys = append(keys, key)
	}
	return keys, ""
}

// parseTime reads the forms that issuers write times in: IAM's minuteLayout by its
// reference, RFC 3339 in its SDK's examples and at the platform. A time in another form
// is unknown.
func parseTime(text string) time.Time {
	for _, layout := range []string{time.RFC3339, minuteLayout, "2006-01-02T15:04:05-0700"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
