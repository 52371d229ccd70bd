// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"cmp"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// keyAnswer is a key as IAM writes it. See APIKey in iamidentityv1.
type keyAnswer struct {
	ID               string           `json:"id"`
	Name             string           `json:"name"`
	Description      string           `json:"description"`
	IAMID            string           `json:"iam_id"`
	AccountID        string           `json:"account_id"`
	Locked           bool             `json:"locked"`
	Disabled         bool             `json:"disabled"`
	CreatedAt        string           `json:"created_at"`
	ExpiresAt        string           `json:"expires_at"`
	ActionWhenLeaked string           `json:"action_when_leaked"`
	SupportSessions  bool             `json:"support_sessions"`
	Value            *upstream.Secret `json:"apikey"`
}

// newKeyRequest is a key as IAM is asked for it. See CreateAPIKeyOptions in
// iamidentityv1. Only a user's keys may support sessions, so that false is not said.
type newKeyRequest struct {
	Name             string `json:"name"`
	Description      string `json:"description,omitempty"`
	IAMID            string `json:"iam_id"`
	AccountID        string `json:"account_id,omitempty"`
	ActionWhenLeaked string `json:"action_when_leaked,omitempty"`
	SupportSessions  bool   `json:"support_sessions,omitempty"`
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
func parseKey(body []byte, secrets ...upstream.Secret) (key rotation.Details, reason string) {
	var parsed keyAnswer
	if reason := upstream.Decode(body, &parsed, keyShape); reason != "" {
		return rotation.Details{}, reason
	}
	if key, reason = parsed.key(secrets); reason != "" {
		return rotation.Details{}, reason
	}
	return key, ""
}

// parseNewKey is parseKey for the one answer that holds the key's value. What can
// be told of the key is told even if something is wrong with the answer: a key whose
// id is known can be deleted.
func parseNewKey(body []byte, secrets ...upstream.Secret) (key rotation.Details, value upstream.Secret, reason string) {
	var parsed keyAnswer
	// Of JSON in another shape, the fields that fit are filled all the same.
	reason = upstream.Decode(body, &parsed, keyShape)
	if parsed.Value != nil {
		value = *parsed.Value
	}
	key, wrong := parsed.key(append(secrets, value))
	reason = cmp.Or(reason, wrong)
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

// maxValueBytes is far beyond the 44 bytes that IBM Cloud's keys have.
const maxValueBytes = 4096

func notInValue(r rune) bool { return r > unicode.MaxASCII || !unicode.IsGraphic(r) || r == ' ' }

// parseList returns a page's keys and the token that asks for the next page, which
// is empty on the last one.
func parseList(body []byte, secrets ...upstream.Secret) (keys []rotation.Details, pageToken, reason string) {
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

// key takes from an answer what is fit for requests, logs and storage. Without a
// reason, the key has an id, an identity and an account.
func (a keyAnswer) key(secrets []upstream.Secret) (key rotation.Details, reason string) {
	fit := func(id string) string {
		if !identifier.MatchString(id) || upstream.HoldsAny(id, secrets...) {
			reason = "answered a key whose id, iam_id or account_id can't be one"
			return ""
		}
		return id
	}
	silent := func(text string) string {
		if upstream.HoldsAny(text, secrets...) {
			return ""
		}
		return text
	}
	key = rotation.Details{
		ID: fit(a.ID), Identity: fit(a.IAMID), AccountID: fit(a.AccountID),
		Name: silent(a.Name), Description: silent(a.Description),
		Locked: a.Locked, Disabled: a.Disabled, CreatedAt: parseCreation(a.CreatedAt), ExpiresAt: parseTime(a.ExpiresAt),
		ActionWhenLeaked: upstream.Handle(a.ActionWhenLeaked, secrets...), SupportSessions: a.SupportSessions,
	}
	return key, reason
}

// minuteLayout is the form that IAM's reference gives for times.
const minuteLayout = "2006-01-02T15:04-0700"

// parseCreation returns the end of the minute that IAM says a key was created in:
// what is judged by a key's age must not take it for older than it is.
func parseCreation(text string) time.Time {
	if t, err := time.Parse(minuteLayout, text); err == nil {
		return t.UTC().Add(time.Minute)
	}
	return parseTime(text)
}

// parseTime reads the forms that IAM writes times in: minuteLayout by its reference,
// RFC 3339 in its SDK's examples. A time in another form is unknown.
func parseTime(text string) time.Time {
	for _, layout := range []string{time.RFC3339, minuteLayout, "2006-01-02T15:04:05-0700"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
