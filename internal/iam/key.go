// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package iam

import (
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// Key is what IAM says of an API key. It never holds the key's value.
type Key struct {
	// ID names the key, such as ApiKey-6a1c1d4e-...; it is no secret.
	ID string
	// Name is chosen by whoever created the key, holds any characters and need not be
	// unique. It is empty if it gives a secret away.
	Name string
	// IAMID is the identity that the key stands for, a user or a service ID.
	IAMID     string
	AccountID string
	// EntityTag changes whenever the key's details do.
	EntityTag string
	// Locked keys can be neither changed nor deleted.
	Locked   bool
	Disabled bool
	// ExpiresAt and CreatedAt are zero if IAM does not say.
	ExpiresAt time.Time
	CreatedAt time.Time
}

// keyAnswer is a key as IAM writes it. See APIKey in iamidentityv1.
type keyAnswer struct {
	ID        string           `json:"id"`
	Name      string           `json:"name"`
	IAMID     string           `json:"iam_id"`
	AccountID string           `json:"account_id"`
	EntityTag string           `json:"entity_tag"`
	Locked    bool             `json:"locked"`
	Disabled  bool             `json:"disabled"`
	ExpiresAt string           `json:"expires_at"`
	CreatedAt string           `json:"created_at"`
	Value     *upstream.Secret `json:"apikey"`
}

// listAnswer is one page of keys. See APIKeyList in iamidentityv1.
type listAnswer struct {
	Keys *[]keyAnswer `json:"apikeys"`
	Next string       `json:"next"`
}

const keyShape = "an API key's"

// identifier is the form of IAM's ids of keys, identities and accounts, with room
// for others: ApiKey-<UUID>, IBMid-<digits>, iam-ServiceId-<UUID>, 32 hex digits.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$`)

// parseKey returns the key that an answer describes, or what is wrong with it.
func parseKey(body []byte, secrets ...upstream.Secret) (key Key, reason string) {
	var parsed keyAnswer
	if reason := upstream.Decode(body, &parsed, keyShape); reason != "" {
		return Key{}, reason
	}
	return parsed.key(secrets)
}

// parseNewKey is parseKey for the one answer that holds the key's value.
func parseNewKey(body []byte, secrets ...upstream.Secret) (key Key, value upstream.Secret, reason string) {
	var parsed keyAnswer
	if reason := upstream.Decode(body, &parsed, keyShape); reason != "" {
		return Key{}, "", reason
	}
	if parsed.Value == nil || *parsed.Value == "" {
		return Key{}, "", "answered without the key's value"
	}
	value = *parsed.Value
	if len(value) > maxValueBytes || strings.ContainsFunc(string(value), notInValue) {
		return Key{}, "", "answered a key whose value can't be one"
	}
	key, reason = parsed.key(append(secrets, value))
	if reason != "" {
		return Key{}, "", reason
	}
	return key, value, ""
}

// maxValueBytes is far beyond the 44 bytes that IBM Cloud's keys have.
const maxValueBytes = 4096

func notInValue(r rune) bool { return r > unicode.MaxASCII || !unicode.IsGraphic(r) || r == ' ' }

// parseList returns a page's keys and the token that asks for the next page, which
// is empty on the last one.
func parseList(body []byte, secrets ...upstream.Secret) (keys []Key, pageToken, reason string) {
	var parsed listAnswer
	if reason := upstream.Decode(body, &parsed, "a list of API keys"); reason != "" {
		return nil, "", reason
	}
	if parsed.Keys == nil {
		return nil, "", "answered without a list of API keys"
	}
	for _, listed := range *parsed.Keys {
		key, reason := listed.key(secrets)
		if reason != "" {
			return nil, "", reason
		}
		keys = append(keys, key)
	}
	pageToken, reason = nextPageToken(parsed.Next)
	if reason != "" {
		return nil, "", reason
	}
	return keys, pageToken, ""
}

// nextPageToken takes the page token from the link to the next page, and nothing
// else: the bearer goes to the host that was configured and to no other.
func nextPageToken(next string) (token, reason string) {
	if next == "" {
		return "", ""
	}
	link, err := url.Parse(next)
	if err != nil {
		return "", "answered a link to the next page that does not parse"
	}
	token = link.Query().Get("pagetoken")
	if token == "" || len(token) > maxPageTokenBytes {
		return "", "answered a link to the next page without a page token that makes sense"
	}
	return token, ""
}

const maxPageTokenBytes = 2048

// key checks what the engine will put into requests, logs and storage.
func (a keyAnswer) key(secrets []upstream.Secret) (key Key, reason string) {
	for _, id := range []string{a.ID, a.IAMID, a.AccountID} {
		if !identifier.MatchString(id) || upstream.HoldsAny(id, secrets...) {
			return Key{}, "answered a key whose id, iam_id or account_id can't be one"
		}
	}
	key = Key{
		ID: a.ID, IAMID: a.IAMID, AccountID: a.AccountID, Locked: a.Locked, Disabled: a.Disabled,
		EntityTag: upstream.Handle(a.EntityTag, secrets...),
		ExpiresAt: parseTime(a.ExpiresAt), CreatedAt: parseTime(a.CreatedAt),
	}
	if !upstream.HoldsAny(a.Name, secrets...) {
		key.Name = a.Name
	}
	return key, ""
}

// parseTime reads the forms that IAM writes times in: yyyy-MM-ddTHH:mm+0000 by its
// reference, RFC 3339 in its SDK's examples. A time in another form is unknown.
func parseTime(text string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04-0700", "2006-01-02T15:04:05-0700"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
