// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"encoding/json"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// userPath precedes the user in the sub of the platform's tokens. That it is a path is
// made up: a client must not mind what a user is called.
const userPath = "/api/user-registries/simulated/users/"

// defaultPlatformPage is how many keys the platform lists unless it is told.
const defaultPlatformPage = 50

// slug is a form that the platform accepts names in. It was seen to accept capitals, too.
var slug = regexp.MustCompile(`^[a-z0-9-]{1,128}$`)

// platformKeyAPI is the key API of API Connect's platform service, one call to each
// of the toolkit's commands api-keys:create, :list, :get and :delete.
func (s *Sim) platformKeyAPI() keyAPI {
	return keyAPI{
		callerOf:    s.platformCaller,
		unreadable:  func() reply { return platformRefusal(http.StatusBadRequest, "The request is not valid.") },
		spoiltError: `{"status":"{key}","message":["{key}"],"errors":["{key}"]}`,
	}
}

func platformRefusal(status int, text string) reply {
	return reply{status, platformError(status, text)}
}

func noSuchPlatformKey() reply {
	return platformRefusal(http.StatusNotFound, "The API key could not be found.")
}

// platformCaller returns the user whose token of the platform's a request carries.
func (s *Sim) platformCaller(r *http.Request) (caller, *reply) {
	claims, err := s.authenticate(r)
	if err == nil && claims.GrantType != "" {
		return caller{iamID: strings.TrimPrefix(claims.Subject, userPath), platform: true, token: claims}, nil
	}
	text := "The token is not one of the platform's."
	if err != nil {
		text = err.Error()
	}
	refused := platformRefusal(http.StatusUnauthorized, text)
	return caller{}, &refused
}

// newPlatformKey is what a creation asks for.
type newPlatformKey struct {
	ClientType  string `json:"client_type"`
	Name        string `json:"name"`
	Title       string `json:"title"`
	Description string `json:"description"`
	// TTL is in seconds.
	TTL int64 `json:"ttl"`
}

func (n newPlatformKey) isValid() bool {
	return n.ClientType == "toolkit" && n.Description != "" && slug.MatchString(n.Name) &&
		n.TTL >= 0 && n.TTL <= math.MaxInt64/int64(time.Second)
}

// createPlatformKey is POST /api/cloud/api-keys.
func (s *Sim) createPlatformKey(r *http.Request, by caller) reply {
	wanted := newPlatformKey{Name: newID()}
	err := json.NewDecoder(r.Body).Decode(&wanted)
	if err != nil || r.Header.Get("Content-Type") != "application/json" || !wanted.isValid() {
		return platformRefusal(http.StatusBadRequest, "client_type and description are required, and name must be a slug.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if status := s.platformKeys.Refuse; status != 0 {
		return platformRefusal(status, "API keys can't be created.")
	}
	for _, k := range s.keysOf(by, time.Now()) {
		if k.Name == wanted.Name {
			return platformRefusal(http.StatusConflict, "An API key of this name exists already.")
		}
	}
	k := s.addKey(NewKeyValue(), KeyOptions{
		SingleUse: s.platformKeys.SingleUse, Life: s.platformKeys.granted(time.Duration(wanted.TTL) * time.Second),
		Name: wanted.Name, Description: wanted.Description, IAMID: by.iamID,
	})
	k.id, k.createdByAPI, k.clientType, k.title = newID(), true, wanted.ClientType, wanted.Title
	if s.platformKeys.TokenTimes {
		k.madeWith = by.token
	}
	s.counts.KeysCreated++
	return reply{http.StatusCreated, withSecrets(describeForPlatform(r, k), k)}
}

// withPlatformKey is withKey at the platform, whose paths name a key by its id or
// name. Other users' keys are not there.
func (s *Sim) withPlatformKey(r *http.Request, by caller, v view, perform func(*keyState) reply) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	called := r.PathValue("id")
	for _, k := range s.keysOf(by, s.seenAt(v)) {
		if k.id == called || k.Name == called {
			return perform(k)
		}
	}
	return noSuchPlatformKey()
}

// getPlatformKey is GET /api/cloud/api-keys/{id}, which tells the value again.
func (s *Sim) getPlatformKey(r *http.Request, by caller) reply {
	return s.withPlatformKey(r, by, viewGet, func(k *keyState) reply {
		return reply{http.StatusOK, withSecrets(describeForPlatform(r, k), k)}
	})
}

// deletePlatformKey is DELETE /api/cloud/api-keys/{id}.
func (s *Sim) deletePlatformKey(r *http.Request, by caller) reply {
	return s.withPlatformKey(r, by, viewDelete, s.remove)
}

// listPlatformKeys is GET /api/cloud/api-keys.
func (s *Sim) listPlatformKeys(r *http.Request, by caller) reply {
	limit, valid := countOf(r, "limit", defaultPlatformPage)
	offset, alsoValid := countOf(r, "offset", 0)
	if !valid || !alsoValid || limit == 0 {
		return platformRefusal(http.StatusBadRequest, "limit or offset is not valid.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	theirs := s.keysOf(by, s.seenAt(viewList))
	page := make([]any, 0)
	for _, k := range theirs[min(offset, len(theirs)):] {
		if len(page) < limit {
			page = append(page, only(r.URL.Query().Get("fields"), describeForPlatform(r, k)))
		}
	}
	return reply{http.StatusOK, map[string]any{"total_results": len(theirs), "results": page}}
}

// countOf reads a number of the query, which is otherwise if it is not there.
func countOf(r *http.Request, name string, otherwise int) (count int, valid bool) {
	if !r.URL.Query().Has(name) {
		return otherwise, true
	}
	count, err := strconv.Atoi(r.URL.Query().Get(name))
	return count, err == nil && count >= 0
}

// only leaves of a key the fields that are listed between commas, all if none is.
func only(fields string, body map[string]any) map[string]any {
	if fields == "" {
		return body
	}
	left := make(map[string]any)
	for name := range strings.SplitSeq(fields, ",") {
		if value, found := body[name]; found {
			left[name] = value
		}
	}
	return left
}

// withSecrets adds what a list leaves out: the value, and a token that the published
// example of an answer has beside it.
func withSecrets(body map[string]any, k *keyState) map[string]any {
	body["api_key"] = k.value
	body["id_token"] = "eyJhbGciOiJub25lIn0.e30.simulated"
	return body
}

// describeForPlatform is a key as the platform describes it, without its value. The
// caller holds the lock.
func describeForPlatform(r *http.Request, k *keyState) map[string]any {
	bornAt := k.bornAt.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	body := map[string]any{
		"type": "api_key", "id": k.id, "name": k.Name, "title": k.title, "description": k.Description, "client_type": k.clientType,
		"url":        origin(r) + "/api/cloud/api-keys/" + k.id,
		"created_at": bornAt, "updated_at": bornAt, "token_iat": k.bornAt.Unix(),
	}
	if k.Life > 0 {
		body["token_exp"] = k.endsAt().Unix()
	}
	if token := k.madeWith; token != nil {
		body["token_jti"], body["token_iat"], body["token_exp"] = token.ID, *token.IssuedAt, *token.Expiry
	}
	return body
}
