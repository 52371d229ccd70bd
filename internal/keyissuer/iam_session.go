// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// pageSize is IAM's own default. Its longest pages, of 100 keys, could exceed
	// what is read of an answer.
	pageSize = 20
	// maxPages and maxFound are far beyond the 20 keys that an identity has. What is found
	// is remembered and stored, with a CA bundle each.
	maxPages = 50
	maxFound = 100
	// findTime bounds the reading of all pages, and is longer than three attempts at one
	// take. Whoever waits has the claim of a config, which nobody can write or delete
	// meanwhile.
	findTime = 40 * time.Second
)

// iamSession calls IBM Cloud IAM as the identity of the key it was logged in with,
// for as long as the bearer lives: an hour at most, even if the key is deleted
// before. The calls are those of IBM's IAM Identity Services API reference
// (https://cloud.ibm.com/apidocs/iam-identity-token-api), with field names and types
// after iamidentityv1 in IBM's platform-services-go-sdk. All errors of its methods
// are an *upstream.Error; those of calls about one key are rotation.ErrNoSuchKey too
// if IAM answers that. A 404 that is not in IAM's own words, such as a proxy's, is not.
type iamSession struct {
	url         string
	caller      *upstream.Caller
	clock       clock
	bearer, key upstream.Secret
	// release gives the transport back.
	release func()
}

// Format keeps the secrets unprinted: their own Format is not called for fields
// that are not exported.
func (*iamSession) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[session with IAM]") }

// Close ends the session at this end; IAM knows of none.
func (s *iamSession) Close() { s.release() }

// Now is the time by IAM's clock: the Date of its last answer and what has passed
// since. It errs on the early side, by a second and the time that the answer took.
func (s *iamSession) Now() time.Time { return s.clock.now() }

// Details returns what IAM says of the key that the session was logged in with.
func (s *iamSession) Details(ctx context.Context) (rotation.Details, error) {
	r := s.request(http.MethodGet, "/v1/apikeys/details")
	r.Header.Set("IAM-ApiKey", string(s.key))
	return s.read(ctx, r, readOwnKey, "")
}

// Get returns what IAM says of the key with an id. See get-api-key in IBM's
// reference: GET /v1/apikeys/{id}.
func (s *iamSession) Get(ctx context.Context, id string) (rotation.Details, error) {
	r, err := s.requestFor(http.MethodGet, id, "")
	if err != nil {
		return rotation.Details{}, err
	}
	return s.read(ctx, r, readKey, id)
}

// read returns the key that an answer describes; an empty id is that of any.
func (s *iamSession) read(ctx context.Context, r upstream.Request, wanted action, id string) (rotation.Details, error) {
	a, err := s.send(ctx, r, wanted)
	if err != nil {
		return rotation.Details{}, err
	}
	key, reason := parseKey(a.Body, s.bearer, s.key)
	if reason == "" && id != "" && key.ID != id {
		reason = "answered another key than was asked for"
	}
	if reason != "" {
		return rotation.Details{}, s.caller.Nonsense(a, reason)
	}
	return key, nil
}

// Create creates a key with the description, leak action and session support of
// another one. The request is never repeated once IAM may have acted on it: if the
// error's OutcomeUnknown is set and no id comes with it, there may be a key whose
// value is lost, and Find finds it by its name. A key whose id comes with an error
// exists, is of no use, and has to be deleted: it is of another identity or account
// than was asked for, or its value is missing. IAM may shorten the name, which is no
// error.
func (s *iamSession) Create(ctx context.Context, n rotation.NewKey) (rotation.Details, rotation.Secret, error) {
	body, err := json.Marshal(newKeyRequest{
		Name: n.Name, Description: n.Like.Description, IAMID: n.Of.Identity, AccountID: n.Of.AccountID,
		ActionWhenLeaked: n.Like.ActionWhenLeaked, SupportSessions: n.Like.SupportSessions,
	})
	if err != nil {
		return rotation.Details{}, "", s.caller.Unasked("the new key can't be described in JSON")
	}
	r := s.request(http.MethodPost, "/v1/apikeys")
	r.Header.Set("Content-Type", "application/json")
	r.Body, r.Once = body, true
	a, err := s.send(ctx, r, createKey)
	if err != nil {
		return rotation.Details{}, "", err
	}
	created, value, reason := parseNewKey(a.Body, s.bearer, s.key)
	if reason == "" && !belongsTo(created, n.Of) {
		reason = "created a key of another identity or account than was asked for"
	}
	if created.ID != "" && created.CreatedAt.IsZero() {
		created.CreatedAt = s.Now()
	}
	if reason != "" {
		return created, value, s.caller.Nonsense(a, reason)
	}
	return created, value, nil
}

// belongsTo accepts any account where the binding knows none.
func belongsTo(k rotation.Details, of rotation.Binding) bool {
	return k.Identity == of.Identity && (of.AccountID == "" || k.AccountID == of.AccountID)
}

// Find returns all keys of an identity whose name begins with prefix, which is none
// if there is none. IAM's lists may lag behind what was created by seconds.
func (s *iamSession) Find(ctx context.Context, prefix string, of rotation.Binding) ([]rotation.Details, error) {
	if prefix == "" {
		return nil, s.caller.Unasked("every key's name begins with nothing")
	}
	query := url.Values{"iam_id": {of.Identity}, "account_id": {of.AccountID}, "pagesize": {strconv.Itoa(pageSize)}}
	if of.AccountID == "" {
		query.Del("account_id")
	}
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	var found []rotation.Details
	for page := 1; ; page++ {
		a, err := s.send(ctx, s.request(http.MethodGet, "/v1/apikeys?"+query.Encode()), listKeys)
		if err != nil {
			return nil, err
		}
		keys, pageToken, reason := parseList(a.Body, s.bearer, s.key)
		if reason != "" {
			return nil, s.caller.Nonsense(a, reason)
		}
		for _, k := range keys {
			// Checked again, because what is found by its name will be deleted.
			if strings.HasPrefix(k.Name, prefix) && belongsTo(k, of) {
				found = append(found, k)
			}
		}
		if len(found) > maxFound {
			return nil, s.caller.Nonsense(a, "answered a list of more API keys than an identity can have")
		}
		if pageToken == "" {
			return found, nil
		}
		if page == maxPages {
			return nil, s.caller.Nonsense(a, "answered a list of API keys that does not end")
		}
		query.Set("pagetoken", pageToken)
	}
}

// Disable has a key refused until somebody enables it; one that is disabled stays
// so. Tokens that were got with it live on. See disable-api-key in IBM's reference:
// POST /v1/apikeys/{id}/disable, without a body, answers 204.
func (s *iamSession) Disable(ctx context.Context, id string) error {
	return s.change(ctx, http.MethodPost, id, "/disable", disableKey)
}

// Delete deletes a key by its id. Tokens that were got with it live on. One that was
// deleted by an attempt whose answer was lost is ErrNoSuchKey. See delete-api-key in
// IBM's reference: DELETE /v1/apikeys/{id}, answers 204.
func (s *iamSession) Delete(ctx context.Context, id string) error {
	return s.change(ctx, http.MethodDelete, id, "", deleteKey)
}

// change makes a call whose answer's status tells all.
func (s *iamSession) change(ctx context.Context, method, id, part string, wanted action) error {
	r, err := s.requestFor(method, id, part)
	if err != nil {
		return err
	}
	_, err = s.send(ctx, r, wanted)
	return err
}

// requestFor is a request about one key, or the error for an id that can't be one.
func (s *iamSession) requestFor(method, id, part string) (upstream.Request, error) {
	if !identifier.MatchString(id) {
		return upstream.Request{}, s.caller.Unasked("the id of the key can't be one")
	}
	return s.request(method, "/v1/apikeys/"+url.PathEscape(id)+part), nil
}

func (s *iamSession) request(method, path string) upstream.Request {
	return upstream.Request{
		Method: method, URL: s.url + path,
		Header: http.Header{"Authorization": {"Bearer " + string(s.bearer)}},
	}
}

func (s *iamSession) send(ctx context.Context, r upstream.Request, wanted action) (*upstream.Answer, error) {
	r.Secrets = []upstream.Secret{s.bearer, s.key}
	a, err := s.caller.Send(ctx, r, refusalOf(wanted, r.Secrets...))
	var failed *upstream.Error
	if errors.As(err, &failed) && failed.Status == http.StatusNotFound && failed.Code != "" && wanted.isAboutOneKey() {
		return nil, &keyError{failed, rotation.ErrNoSuchKey}
	}
	return a, err
}
