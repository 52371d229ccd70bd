// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"cmp"
	"encoding/json"
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

func keyLocked() reply {
	return keyError(http.StatusConflict, "conflict", "", "The API key is locked.")
}

func notTheirs() reply {
	return keyError(http.StatusForbidden, "forbidden", "", "The identity may not manage these API keys.")
}

// caller is the identity whose token a call of the key API carries.
type caller struct {
	iamID, accountID string
	// platform says that it is a user of the platform, which knows no accounts.
	platform bool
	token    *tokenClaims
}

// belongsTo has keys that were added belong to their owner at both key APIs, and
// those that one of them created to the owner there.
func (k *keyState) belongsTo(c caller) bool {
	if k.IAMID != c.iamID || k.createdByAPI && k.isPlatforms() != c.platform {
		return false
	}
	return c.platform || k.AccountID == c.accountID
}

// keysOf returns the keys that an identity had at a time, oldest first. It wants the
// lock held.
func (s *Sim) keysOf(c caller, at time.Time) []*keyState {
	var theirs []*keyState
	for _, k := range s.keys {
		if k.belongsTo(c) && k.existedAt(at) {
			theirs = append(theirs, k)
		}
	}
	slices.SortFunc(theirs, func(a, b *keyState) int { return a.serial - b.serial })
	return theirs
}

// keyCaller returns whose token a request carries. Only IAM's tokens say; one that
// is good lets its identity in even if the key that it was issued for is gone.
func (s *Sim) keyCaller(r *http.Request) (caller, *reply) {
	claims, err := s.authenticate(r)
	if err == nil && claims.IAMID != "" {
		return caller{iamID: claims.IAMID, accountID: claims.Account.ID, token: claims}, nil
	}
	text := "The token is not one of IAM's."
	if err != nil {
		text = err.Error()
	}
	refused := keyError(http.StatusUnauthorized, "unauthorized", "", text)
	return caller{}, &refused
}

// SetNameLimit has IAM's key API shorten the names of keys that it creates from now
// on to so many characters; 0 keeps them whole.
func (s *Sim) SetNameLimit(characters int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nameLimit = characters
}

// shortened is the name that a created key gets. The caller holds the lock.
func (s *Sim) shortened(name string) string {
	characters := []rune(name)
	if s.nameLimit == 0 || len(characters) <= s.nameLimit {
		return name
	}
	return string(characters[:s.nameLimit])
}

// createKey is POST /v1/apikeys.
func (s *Sim) createKey(r *http.Request, by caller) reply {
	var wanted struct {
		Name             string `json:"name"`
		Description      string `json:"description"`
		IAMID            string `json:"iam_id"`
		AccountID        string `json:"account_id"`
		StoreValue       bool   `json:"store_value"`
		ActionWhenLeaked string `json:"action_when_leaked"`
		SupportSessions  bool   `json:"support_sessions"`
		ExpiresAt        string `json:"expires_at"`
	}
	err := json.NewDecoder(r.Body).Decode(&wanted)
	life, endsWell := s.lifeUntil(wanted.ExpiresAt)
	if err == nil && (!endsWell || !slices.Contains([]string{"", "none", "disable", "delete"}, wanted.ActionWhenLeaked)) {
		return keyError(http.StatusBadRequest, "bad_request", "", "expires_at is a time to come, and action_when_leaked none, disable or delete.")
	}
	if err != nil || r.Header.Get("Content-Type") != "application/json" || wanted.Name == "" || wanted.IAMID == "" || wanted.StoreValue {
		return keyError(http.StatusBadRequest, "bad_request", "", "name and iam_id are required, and a user's key can't be stored.")
	}
	if wanted.IAMID != by.iamID || wanted.AccountID != "" && wanted.AccountID != by.accountID {
		return notTheirs()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keysOf(by, time.Now())) >= maxKeysPerIdentity {
		return keyError(http.StatusUnprocessableEntity, "limit_reached", "BXNIM0151E", "The limit of supported API keys is reached")
	}
	value := NewKeyValue()
	k := s.addKey(value, KeyOptions{
		Name: s.shortened(wanted.Name), Description: wanted.Description, IAMID: by.iamID, AccountID: by.accountID,
		ActionWhenLeaked: wanted.ActionWhenLeaked, SupportSessions: wanted.SupportSessions, Life: life,
	})
	k.createdByAPI = true
	s.counts.KeysCreated++
	body := describe(k, time.Now())
	body["apikey"] = value
	return reply{http.StatusCreated, body}
}

// lifeUntil is how long a key is to live whose expires_at is asked for, 0 for one without an
// end, and whether it can be.
func (s *Sim) lifeUntil(expiresAt string) (life time.Duration, ok bool) {
	if expiresAt == "" {
		return 0, true
	}
	at, err := time.Parse(timeLayout, expiresAt)
	s.mu.Lock()
	defer s.mu.Unlock()
	life = at.Sub(s.clock())
	return life, err == nil && life > 0
}

// keyDetails is GET /v1/apikeys/details.
func (s *Sim) keyDetails(r *http.Request, by caller) reply {
	value := r.Header.Get("IAM-ApiKey")
	if value == "" {
		return keyError(http.StatusBadRequest, "bad_request", "", "The IAM-ApiKey header is required.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, at := s.keys[value], s.seenAt(viewGet)
	if k == nil || !k.existedAt(at) {
		return keyNotFound()
	}
	if !k.belongsTo(by) {
		return notTheirs()
	}
	return reply{http.StatusOK, describe(k, at)}
}

// withKey performs what a call wants with the key that its path names, if the view
// knows it: perform is told the time whose state it sees. It holds the lock meanwhile.
func (s *Sim) withKey(r *http.Request, by caller, v view, perform func(*keyState, time.Time) reply) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.seenAt(v)
	for _, k := range s.keys {
		if k.id != r.PathValue("id") || !k.existedAt(at) {
			continue
		}
		if !k.belongsTo(by) {
			return notTheirs()
		}
		return perform(k, at)
	}
	return keyNotFound()
}

// getKey is GET /v1/apikeys/{id}.
func (s *Sim) getKey(r *http.Request, by caller) reply {
	return s.withKey(r, by, viewGet, func(k *keyState, at time.Time) reply {
		return reply{http.StatusOK, describe(k, at)}
	})
}

// deleteKey is DELETE /v1/apikeys/{id}.
func (s *Sim) deleteKey(r *http.Request, by caller) reply {
	return s.withKey(r, by, viewDelete, func(k *keyState, _ time.Time) reply {
		if k.Locked {
			return keyLocked()
		}
		return s.remove(k)
	})
}

// remove deletes a key for a call. A part that lags takes the deletion of a deleted key
// for the first. The caller holds the lock.
func (s *Sim) remove(k *keyState) reply {
	if k.exists() {
		k.delete()
		s.counts.KeysDeleted++
	}
	return reply{http.StatusNoContent, nil}
}

// disableKey is POST /v1/apikeys/{id}/disable.
func (s *Sim) disableKey(r *http.Request, by caller) reply { return s.toggleKey(r, by, true) }

// enableKey is DELETE /v1/apikeys/{id}/disable.
func (s *Sim) enableKey(r *http.Request, by caller) reply { return s.toggleKey(r, by, false) }

func (s *Sim) toggleKey(r *http.Request, by caller, disabled bool) reply {
	return s.withKey(r, by, viewDelete, func(k *keyState, _ time.Time) reply {
		if k.Locked {
			return keyLocked()
		}
		k.setDisabled(disabled)
		return reply{http.StatusNoContent, nil}
	})
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
	at := s.seenAt(viewList)
	theirs := slices.DeleteFunc(s.keysOf(by, at), func(k *keyState) bool { return k.serial <= after })
	page := make([]any, 0, size)
	for _, k := range theirs[:min(size, len(theirs))] {
		page = append(page, describe(k, at))
	}
	body := map[string]any{"limit": size, "apikeys": page}
	if len(theirs) > size {
		body["next"] = nextPage(r, theirs[size-1].serial)
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
	next := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
	return origin(r) + next.String()
}

// origin is the scheme and host that a request was sent to.
func origin(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// describe is a key as a part of IAM describes it that sees the state of a time. Its
// value is in the answer to its creation alone. The caller holds the lock.
func describe(k *keyState, at time.Time) map[string]any {
	created := k.bornAt.UTC().Format(timeLayout)
	body := map[string]any{
		"id": k.id, "entity_tag": k.entityTag, "name": k.Name, "iam_id": k.IAMID, "account_id": k.AccountID,
		"crn":    "crn:v1:bluemix:public:iam-identity::a/" + k.AccountID + "::apikey:" + k.id,
		"locked": k.Locked, "disabled": k.disabledAt(at),
		"action_when_leaked": cmp.Or(k.ActionWhenLeaked, "none"), "support_sessions": k.SupportSessions,
		"created_at": created, "created_by": k.IAMID, "modified_at": created,
	}
	if k.Description != "" {
		body["description"] = k.Description
	}
	if k.Life > 0 {
		body["expires_at"] = k.endsAt().UTC().Format(timeLayout)
	}
	return body
}
