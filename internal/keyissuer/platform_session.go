// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// platformSession calls the platform's API as the user whose token it has, for as long
// as the token lives. The calls are those of the toolkit's commands api-keys:create,
// :list, :get and :delete, each of which is one call of the platform REST API
// (https://apic-api.apiconnect.ibmcloud.com/v10/).
type platformSession struct {
	session
	user string
}

// Details tells whose token it is. Which key the token was got with nobody says, and no
// call is made.
func (s *platformSession) Details(context.Context) (rotation.Details, error) {
	return rotation.Details{Identity: s.user}, nil
}

// Create creates a key of the session's user; see create. Of n.Like only the description
// is sent. The platform may ignore n.TTL.
func (s *platformSession) Create(ctx context.Context, n rotation.NewKey) (rotation.Details, rotation.Secret, error) {
	if err := s.requireUser(n.Of); err != nil {
		return rotation.Details{}, "", err
	}
	return s.create(ctx, newPlatformKeyRequest{
		ClientType: "toolkit", Description: cmp.Or(n.Like.Description, defaultDescription),
		Name: slug(n.Name), Title: n.Name, TTL: wholeSeconds(n.TTL),
	}, func(body []byte, secrets ...upstream.Secret) (rotation.Details, upstream.Secret, string) {
		created, value, reason := newKey[platformKey](body, secrets...)
		if created.ID != "" {
			created.Identity = s.user
		}
		return created, value, reason
	})
}

// Find returns all keys of the session's user whose name begins as a key of the name
// prefix would be called.
func (s *platformSession) Find(ctx context.Context, prefix string, of rotation.Binding) ([]rotation.Details, error) {
	if prefix = slug(prefix); prefix == "" {
		return nil, s.caller.NotSent("every key's name begins with nothing")
	}
	return s.list(ctx, of, maxFound, func(k rotation.Details) bool { return strings.HasPrefix(k.Name, prefix) })
}

// List returns all keys of the session's user.
func (s *platformSession) List(ctx context.Context, of rotation.Binding) ([]rotation.Details, error) {
	return s.list(ctx, of, maxListed, func(rotation.Details) bool { return true })
}

func (s *platformSession) list(ctx context.Context, of rotation.Binding, most int, matches func(rotation.Details) bool) ([]rotation.Details, error) {
	if err := s.requireUser(of); err != nil {
		return nil, err
	}
	query := url.Values{"limit": {strconv.Itoa(pageSize)}, "offset": {"0"}, "fields": {"id,name,created_at,token_exp,token_jti"}}
	seen := 0
	parse := func(body []byte) (listPage, string) {
		keys, total, reason := parsePlatformList(body, s.secrets...)
		seen += len(keys)
		switch {
		case reason != "" || seen >= total:
			return listPage{keys: keys}, reason
		case len(keys) == 0:
			return listPage{}, "answered a list of API keys that ends too early"
		}
		return listPage{keys: keys, next: url.Values{"offset": {strconv.Itoa(seen)}}}, ""
	}
	found, err := s.find(ctx, query, most, parse, matches)
	for i := range found {
		found[i].Identity = s.user
	}
	return found, err
}

// requireUser refuses a binding of another user than the session's: the session does not
// see that user's keys, and can't create their successors.
func (s *platformSession) requireUser(of rotation.Binding) error {
	if of.Identity != "" && of.Identity != s.user {
		return s.caller.NotSent("the token is of another user than the API key")
	}
	return nil
}

// Get returns what the platform says of the key with an id. The platform tells the
// key's value again, which goes no further.
func (s *platformSession) Get(ctx context.Context, id string) (rotation.Details, error) {
	r, err := s.requestFor(http.MethodGet, id, "")
	if err != nil {
		return rotation.Details{}, err
	}
	key, err := s.read(ctx, r, readKey, id, oneKey[platformKey])
	if err != nil {
		return rotation.Details{}, err
	}
	key.Identity = s.user
	return key, nil
}

// Disable returns errors.ErrUnsupported: the platform can't disable a key.
func (*platformSession) Disable(context.Context, string) error { return errors.ErrUnsupported }

// Delete deletes a key by its id. Tokens that were issued for it live on. If an earlier
// attempt, whose answer was lost, deleted the key, the error is ErrNoSuchKey.
func (s *platformSession) Delete(ctx context.Context, id string) error {
	return s.change(ctx, http.MethodDelete, id, "", deleteKey)
}

// wholeSeconds rounds up, so that less than a second does not become 0, which asks for no
// lifetime.
func wholeSeconds(d time.Duration) int64 { return int64((max(d, 0) + time.Second - 1) / time.Second) }
