// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// maxKeysPerIdentity is IAM's limit for a user or a service ID; see "IAM limits" in
// IBM Cloud's documentation.
const maxKeysPerIdentity = 20

// maxPageSize and defaultPageSize are those of IAM's list; see ListAPIKeysOptions
// in iamidentityv1 of IBM's platform-services-go-sdk.
const (
	maxPageSize     = 100
	defaultPageSize = 20
)

// timeLayout is the form that IAM's API reference gives for times.
const timeLayout = "2006-01-02T15:04-0700"

// reply is a whole answer; its body may be nil.
type reply struct {
	status int
	body   map[string]any
}

func (a reply) write(w http.ResponseWriter) {
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	answer(w, a.status, a.body)
}

// keyError has the shape of ExceptionResponse in iamidentityv1. messageCode is
// empty where IBM's is not known; there, code is made up too.
func keyError(status int, code, messageCode, text string) reply {
	detail := map[string]any{"code": code, "message": text}
	if messageCode != "" {
		detail["message_code"] = messageCode
	}
	return reply{status, map[string]any{"trace": newID(), "status_code": status, "errors": []any{detail}}}
}

func keyNotFound() reply {
	return keyError(http.StatusNotFound, "not_found", "BXNIM0102E", "Unable to find object")
}

func notTheirs() reply {
	return keyError(http.StatusForbidden, "forbidden", "", "The identity may not manage these API keys.")
}

// caller is the identity whose token a call of the key API carries.
type caller struct{ iamID, accountID string }

func (k *keyState) belongsTo(c caller) bool {
	return k.IAMID == c.iamID && k.AccountID == c.accountID
}

// keyCaller returns whose token a request carries. Only IAM's tokens say; one that
// is good lets its identity in even if the key that bought it is gone.
func (s *Sim) keyCaller(r *http.Request) (caller, *reply) {
	claims, err := s.authenticate(r)
	if err == nil && claims.IAMID != "" {
		return caller{claims.IAMID, claims.Account.ID}, nil
	}
	text := "The token is not one of IAM's."
	if err != nil {
		text = err.Error()
	}
	refused := keyError(http.StatusUnauthorized, "unauthorized", "", text)
	return caller{}, &refused
}

// createKey is POST /v1/apikeys.
func (s *Sim) createKey(r *http.Request, by caller) reply {
	var wanted struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		IAMID       string `json:"iam_id"`
		AccountID   string `json:"account_id"`
		StoreValue  bool   `json:"store_value"`
	}
	err := json.NewDecoder(r.Body).Decode(&wanted)
	if err != nil || r.Header.Get("Content-Type") != "application/json" || wanted.Name == "" || wanted.IAMID == "" || wanted.StoreValue {
		return keyError(http.StatusBadRequest, "bad_request", "", "name and iam_id are required, and a user's key can't be stored.")
	}
	if wanted.IAMID != by.iamID || wanted.AccountID != "" && wanted.AccountID != by.accountID {
		return notTheirs()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keysOf(by) >= maxKeysPerIdentity {
		return keyError(http.StatusUnprocessableEntity, "limit_reached", "BXNIM0151E", "The limit of supported API keys is reached")
	}
	value := NewKeyValue()
	k := s.addKey(value, KeyOptions{Name: wanted.Name, Description: wanted.Description, IAMID: by.iamID, AccountID: by.accountID})
	k.createdByAPI = true
	s.counts.KeysCreated++
	body := k.describe()
	body["apikey"] = value
	return reply{http.StatusCreated, body}
}

// keysOf counts the keys that an identity has. It wants the lock held.
func (s *Sim) keysOf(c caller) int {
	count := 0
	for _, k := range s.keys {
		if k.exists() && k.belongsTo(c) {
			count++
		}
	}
	return count
}

// keyDetails is GET /v1/apikeys/details.
func (s *Sim) keyDetails(r *http.Request, by caller) reply {
	value := r.Header.Get("IAM-ApiKey")
	if value == "" {
		return keyError(http.StatusBadRequest, "bad_request", "", "The IAM-ApiKey header is required.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[value]
	if k == nil || !s.isListed(k) {
		return keyNotFound()
	}
	if !k.belongsTo(by) {
		return notTheirs()
	}
	return reply{http.StatusOK, k.describe()}
}

// isListed wants the lock held.
func (s *Sim) isListed(k *keyState) bool { return k.exists() && !k.younger(s.listDelay) }

// deleteKey is DELETE /v1/apikeys/{id}.
func (s *Sim) deleteKey(r *http.Request, by caller) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if k.id != r.PathValue("id") || !k.exists() {
			continue
		}
		if !k.belongsTo(by) {
			return notTheirs()
		}
		if k.Locked {
			return keyError(http.StatusConflict, "conflict", "", "The API key is locked.")
		}
		k.delete()
		s.counts.KeysDeleted++
		return reply{http.StatusNoContent, nil}
	}
	return keyNotFound()
}

// listKeys is GET /v1/apikeys.
func (s *Sim) listKeys(r *http.Request, by caller) reply {
	query := r.URL.Query()
	size, after, ok := pageOf(query)
	if !ok {
		return keyError(http.StatusBadRequest, "bad_request", "", "pagesize or pagetoken is not valid.")
	}
	if asked := query.Get("iam_id"); asked != "" && asked != by.iamID {
		return notTheirs()
	}
	if asked := query.Get("account_id"); asked != "" && asked != by.accountID {
		return notTheirs()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	described := make(map[int]map[string]any)
	for _, k := range s.keys {
		if k.serial > after && k.belongsTo(by) && s.isListed(k) {
			described[k.serial] = k.describe()
		}
	}
	serials := slices.Sorted(maps.Keys(described))
	page := make([]any, 0, size)
	for _, serial := range serials[:min(size, len(serials))] {
		page = append(page, described[serial])
	}
	body := map[string]any{"limit": size, "apikeys": page}
	if len(serials) > size {
		body["next"] = nextPage(r, serials[size-1])
	}
	return reply{http.StatusOK, body}
}

// pageOf reads which page is wanted: how many keys, and after which one.
func pageOf(query url.Values) (size, after int, ok bool) {
	size = defaultPageSize
	if text := query.Get("pagesize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPageSize {
			return 0, 0, false
		}
		size = n
	}
	if !query.Has("pagetoken") {
		return size, 0, true
	}
	after, err := strconv.Atoi(query.Get("pagetoken"))
	return size, after, err == nil && after > 0
}

// nextPage is a whole URL, as IAM's is.
func nextPage(r *http.Request, after int) string {
	query := r.URL.Query()
	query.Set("pagetoken", strconv.Itoa(after))
	next := url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawQuery: query.Encode()}
	if r.TLS != nil {
		next.Scheme = "https"
	}
	return next.String()
}

// describe is a key as IAM describes it. Its value is in the answer to its creation
// alone.
func (k *keyState) describe() map[string]any {
	created := k.addedAt.UTC().Format(timeLayout)
	body := map[string]any{
		"id": k.id, "entity_tag": k.entityTag, "name": k.Name, "iam_id": k.IAMID, "account_id": k.AccountID,
		"crn":    "crn:v1:bluemix:public:iam-identity::a/" + k.AccountID + "::apikey:" + k.id,
		"locked": k.Locked, "disabled": k.disabled,
		"created_at": created, "created_by": k.IAMID, "modified_at": created,
	}
	if k.Description != "" {
		body["description"] = k.Description
	}
	if k.Life > 0 {
		body["expires_at"] = k.addedAt.Add(k.Life).UTC().Truncate(time.Minute).Format(timeLayout)
	}
	return body
}
