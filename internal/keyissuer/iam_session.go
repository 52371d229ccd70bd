// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// iamSession calls IBM Cloud IAM as the identity of the key it was logged in with,
// for as long as the bearer lives: an hour at most, even if the key is deleted
// before. The calls are those of IBM's IAM Identity Services API reference
// (https://cloud.ibm.com/apidocs/iam-identity-token-api), with field names and types
// after iamidentityv1 in IBM's platform-services-go-sdk.
type iamSession struct {
	session
	key upstream.Secret
}

// Details returns what IAM says of the key that the session was logged in with.
func (s *iamSession) Details(ctx context.Context) (rotation.Details, error) {
	r := s.request(http.MethodGet, "/details")
	r.Header.Set("IAM-ApiKey", string(s.key))
	return s.read(ctx, r, readOwnKey, "", oneKey[keyAnswer])
}

// Get returns what IAM says of the key with an id. See get-api-key in IBM's
// reference: GET /v1/apikeys/{id}.
func (s *iamSession) Get(ctx context.Context, id string) (rotation.Details, error) {
	r, err := s.requestFor(http.MethodGet, id, "")
	if err != nil {
		return rotation.Details{}, err
	}
	return s.read(ctx, r, readKey, id, oneKey[keyAnswer])
}

// Create creates a key that lives for n.TTL and has the description, leak action and
// session support of n.Like; see create. IAM accepts expires_at in whole minutes
// (yyyy-MM-ddTHH:mm+0000, in IBM's reference). A key of another identity or account than
// was asked for is an error. IAM may shorten the name, which is no error.
func (s *iamSession) Create(ctx context.Context, n rotation.NewKey) (rotation.Details, rotation.Secret, error) {
	wanted := newKeyRequest{
		Name: n.Name, Description: n.Like.Description, IAMID: n.Of.Identity, AccountID: n.Of.AccountID,
		ActionWhenLeaked: n.Like.ActionWhenLeaked, SupportSessions: n.Like.SupportSessions,
		ExpiresAt: expiryAfter(s.Now(), n.TTL),
	}
	return s.create(ctx, wanted, func(body []byte, secrets ...upstream.Secret) (rotation.Details, upstream.Secret, string) {
		created, value, reason := newKey[keyAnswer](body, secrets...)
		if reason == "" && !belongsTo(created, n.Of) {
			reason = "created a key of another identity or account than was asked for"
		}
		return created, value, reason
	})
}

// belongsTo accepts any account where the binding knows none.
func belongsTo(k rotation.Details, of rotation.Binding) bool {
	return k.Identity == of.Identity && (of.AccountID == "" || k.AccountID == of.AccountID)
}

// Find returns all keys of an identity whose name begins with prefix; none is not an
// error. IAM's lists may lag behind creations by seconds.
func (s *iamSession) Find(ctx context.Context, prefix string, of rotation.Binding) ([]rotation.Details, error) {
	if prefix == "" {
		return nil, s.caller.NotSent("every key's name begins with nothing")
	}
	return s.list(ctx, of, maxFound, func(k rotation.Details) bool {
		// Checked again, because what is found by its name will be deleted.
		return strings.HasPrefix(k.Name, prefix) && belongsTo(k, of)
	})
}

// List returns all keys of an identity.
func (s *iamSession) List(ctx context.Context, of rotation.Binding) ([]rotation.Details, error) {
	return s.list(ctx, of, maxListed, func(k rotation.Details) bool { return belongsTo(k, of) })
}

func (s *iamSession) list(ctx context.Context, of rotation.Binding, most int, matches func(rotation.Details) bool) ([]rotation.Details, error) {
	query := url.Values{"iam_id": {of.Identity}, "account_id": {of.AccountID}, "pagesize": {strconv.Itoa(pageSize)}}
	if of.AccountID == "" {
		query.Del("account_id")
	}
	parse := func(body []byte) (listPage, string) {
		keys, pageToken, reason := parseList(body, s.secrets...)
		page := listPage{keys: keys}
		if pageToken != "" {
			page.next = url.Values{"pagetoken": {pageToken}}
		}
		return page, reason
	}
	return s.find(ctx, query, most, parse, matches)
}

// Disable disables a key, if it is not disabled already. Tokens that were got with it live on. See disable-api-key in IBM's reference:
// POST /v1/apikeys/{id}/disable, without a body, answers 204.
func (s *iamSession) Disable(ctx context.Context, id string) error {
	return s.change(ctx, http.MethodPost, id, "/disable", disableKey)
}

// Delete deletes a key by its id. Tokens that were issued for it live on. If an earlier
// attempt, whose answer was lost, deleted the key, the error is ErrNoSuchKey. See delete-api-key in
// IBM's reference: DELETE /v1/apikeys/{id}, answers 204.
func (s *iamSession) Delete(ctx context.Context, id string) error {
	return s.change(ctx, http.MethodDelete, id, "", deleteKey)
}
