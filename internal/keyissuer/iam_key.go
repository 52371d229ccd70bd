// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"net/url"
	"strings"
	"time"

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
	ExpiresAt        string `json:"expires_at,omitempty"`
}

// listAnswer is one page of keys. See APIKeyList in iamidentityv1.
type listAnswer struct {
	Keys *[]keyAnswer `json:"apikeys"`
	Next string       `json:"next"`
}

// parseList returns a page's keys and the token that asks for the next page, which
// is empty on the last one.
func parseList(body []byte, secrets ...upstream.Secret) (keys []rotation.Details, pageToken, reason string) {
	var parsed listAnswer
	if reason := upstream.Decode(body, &parsed, listShape); reason != "" {
		return nil, "", reason
	}
	if parsed.Keys == nil {
		return nil, "", withoutList
	}
	if keys, reason = keysOf(*parsed.Keys, secrets); reason != "" {
		return nil, "", reason
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

// key has an id, an identity and an account if there is no reason.
func (a keyAnswer) key(secrets []upstream.Secret) (key rotation.Details, reason string) {
	fit := newScreen(a.Value, secrets)
	key = rotation.Details{
		ID: fit.id(a.ID), Identity: fit.id(a.IAMID), AccountID: fit.id(a.AccountID),
		Name: fit.text(a.Name), Description: fit.text(a.Description),
		Locked: a.Locked, Disabled: a.Disabled, CreatedAt: parseCreation(a.CreatedAt), ExpiresAt: parseTime(a.ExpiresAt),
		ActionWhenLeaked: upstream.Handle(a.ActionWhenLeaked, fit.secrets...), SupportSessions: a.SupportSessions,
	}
	key.NotCarried = a.lostIn(key)
	if fit.unfit {
		reason = "answered a key whose id, iam_id or account_id can't be one"
	}
	return key, reason
}

func (a keyAnswer) value() *upstream.Secret { return a.Value }

// lostIn names the settings that the answer has and the key, as it is kept of it, has not.
func (a keyAnswer) lostIn(key rotation.Details) string {
	var lost []string
	for _, setting := range []struct {
		name, answered string
		kept           bool
	}{
		{"description", a.Description, key.Description != ""},
		{"expires_at", a.ExpiresAt, !key.ExpiresAt.IsZero()},
		{"action_when_leaked", a.ActionWhenLeaked, key.ActionWhenLeaked != ""},
	} {
		if setting.answered != "" && !setting.kept {
			lost = append(lost, setting.name)
		}
	}
	return strings.Join(lost, ", ")
}

// expiryAfter is the end of a life that begins now, as IAM accepts it: in whole minutes, rounded
// up. A life of 0 has none.
func expiryAfter(now time.Time, life time.Duration) string {
	if life <= 0 {
		return ""
	}
	return now.Add(life + time.Minute - 1).UTC().Truncate(time.Minute).Format(minuteLayout)
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
