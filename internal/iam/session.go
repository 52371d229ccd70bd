// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package iam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// pageSize is IAM's own default. Its longest pages, of 100 keys, could exceed
	// what is read of an answer.
	pageSize = 20
	// maxPages is far beyond the 20 keys that an identity has.
	maxPages = 50
)

// Session calls IAM as the identity of the key it was logged in with, for as long
// as the bearer lives: an hour, even if the key is deleted before. All errors of
// its methods are a *upstream.Error.
type Session struct {
	client      *Client
	bearer, key upstream.Secret
}

// Format keeps the secrets unprinted: their own Format is not called for fields
// that are not exported.
func (Session) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[session with IAM]") }

// NewKey is a key to be created.
type NewKey struct {
	Name, Description string
	// IAMID is the identity that the key shall stand for.
	IAMID, AccountID string
}

// Details returns what IAM says of the key that the session was logged in with.
func (s *Session) Details(ctx context.Context) (*Key, error) {
	r := s.request(http.MethodGet, "/v1/apikeys/details")
	r.Header.Set("IAM-ApiKey", string(s.key))
	a, err := s.send(ctx, r, readKey)
	if err != nil {
		return nil, err
	}
	key, reason := parseKey(a.Body, s.bearer, s.key)
	if reason != "" {
		return nil, s.client.caller.Nonsense(a, reason)
	}
	return &key, nil
}

// Create creates a key and returns it with its value, which IAM tells nobody ever
// again. If the error's OutcomeUnknown is set, there may be a key whose value is
// lost: Find finds it by its name. Such a request is never repeated.
func (s *Session) Create(ctx context.Context, n NewKey) (*Key, upstream.Secret, error) {
	body, err := json.Marshal(struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
		IAMID       string `json:"iam_id"`
		AccountID   string `json:"account_id,omitempty"`
	}{n.Name, n.Description, n.IAMID, n.AccountID})
	if err != nil {
		return nil, "", s.client.caller.Unasked("the new key can't be described in JSON")
	}
	r := s.request(http.MethodPost, "/v1/apikeys")
	r.Header.Set("Content-Type", "application/json")
	r.Body, r.Once = body, true
	a, err := s.send(ctx, r, createKey)
	if err != nil {
		return nil, "", err
	}
	key, value, reason := parseNewKey(a.Body, s.bearer, s.key)
	if reason == "" {
		reason = n.differsFrom(key)
	}
	if reason != "" {
		return nil, "", s.client.caller.Nonsense(a, reason)
	}
	return &key, value, nil
}

// differsFrom says what is wrong with the key that was created, if it is not the
// one that was asked for.
func (n NewKey) differsFrom(created Key) string {
	if created.Name != n.Name || !created.belongsTo(n.IAMID, n.AccountID) {
		return "answered a key of another name, identity or account than was asked for"
	}
	return ""
}

// belongsTo takes an empty accountID for any.
func (k Key) belongsTo(iamID, accountID string) bool {
	return k.IAMID == iamID && (accountID == "" || k.AccountID == accountID)
}

// Find returns all keys of exactly this name that belong to an identity, which is
// none if there is none. IAM's lists may lag behind what was created by seconds.
func (s *Session) Find(ctx context.Context, name, iamID, accountID string) ([]Key, error) {
	query := url.Values{"iam_id": {iamID}, "account_id": {accountID}, "pagesize": {strconv.Itoa(pageSize)}}
	if accountID == "" {
		query.Del("account_id")
	}
	var found []Key
	for page := 1; ; page++ {
		a, err := s.send(ctx, s.request(http.MethodGet, "/v1/apikeys?"+query.Encode()), listKeys)
		if err != nil {
			return nil, err
		}
		keys, pageToken, reason := parseList(a.Body, s.bearer, s.key)
		if reason != "" {
			return nil, s.client.caller.Nonsense(a, reason)
		}
		for _, k := range keys {
			// Checked again, because what is found by its name will be deleted.
			if k.Name == name && k.belongsTo(iamID, accountID) {
				found = append(found, k)
			}
		}
		if pageToken == "" {
			return found, nil
		}
		if page == maxPages {
			return nil, s.client.caller.Nonsense(a, "answered a list of API keys that does not end")
		}
		query.Set("pagetoken", pageToken)
	}
}

// Delete deletes a key by its id, or finds it gone. Tokens that it bought live on.
func (s *Session) Delete(ctx context.Context, id string) error {
	if !identifier.MatchString(id) {
		return s.client.caller.Unasked("the id of the key to delete can't be one")
	}
	_, err := s.send(ctx, s.request(http.MethodDelete, "/v1/apikeys/"+url.PathEscape(id)), deleteKey)
	var failed *upstream.Error
	if errors.As(err, &failed) && failed.Status == http.StatusNotFound {
		return nil
	}
	return err
}

func (s *Session) request(method, path string) upstream.Request {
	return upstream.Request{
		Method: method, URL: s.client.options.URL + path,
		Header: http.Header{"Authorization": {"Bearer " + string(s.bearer)}},
	}
}

func (s *Session) send(ctx context.Context, r upstream.Request, wanted action) (*upstream.Answer, error) {
	r.Secrets = []upstream.Secret{s.bearer, s.key}
	return s.client.caller.Send(ctx, r, refusalOf(wanted, r.Secrets...))
}
