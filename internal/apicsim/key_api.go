// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// keysPerIdentity is the limit that IBM Cloud's documentation gives.
	keysPerIdentity = 20

	defaultPageSize = 10
	maxPageSize     = 100
)

// The calls of IAM's key API, as a KeyFault names them.
const (
	CallCreate  = "create"
	CallDelete  = "delete"
	CallDetails = "details"
	CallList    = "list"
)

// handleKeys adds the API by which an identity manages its own keys, after /v1/apikeys
// of IBM's IAM Identity Services API reference.
func (s *Sim) handleKeys() {
	s.mux.HandleFunc("POST /v1/apikeys", s.serveKeyCall(CallCreate, s.createKey))
	s.mux.HandleFunc("GET /v1/apikeys", s.serveKeyCall(CallList, s.listKeys))
	s.mux.HandleFunc("GET /v1/apikeys/details", s.serveKeyCall(CallDetails, s.keyDetails))
	s.mux.HandleFunc("DELETE /v1/apikeys/{id}", s.serveKeyCall(CallDelete, s.deleteKey))
}

// keyAnswer is a key as the API tells it. Value is in the answer to its creation
// alone.
type keyAnswer struct {
	ID          string `json:"id"`
	EntityTag   string `json:"entity_tag"`
	CRN         string `json:"crn"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Locked      bool   `json:"locked"`
	Disabled    bool   `json:"disabled"`
	CreatedAt   string `json:"created_at"`
	CreatedBy   string `json:"created_by"`
	IAMID       string `json:"iam_id"`
	AccountID   string `json:"account_id"`
	Value       string `json:"apikey,omitempty"`
}

func (k *keyState) answer() keyAnswer {
	return keyAnswer{
		ID: k.id, EntityTag: k.entityTag, CRN: "crn:v1:simulated::apikey:" + k.id, Name: k.name, Description: k.description,
		Locked: k.locked, Disabled: k.disabled, CreatedAt: k.addedAt.UTC().Format("2006-01-02T15:04-0700"),
		CreatedBy: k.owner.IAMID, IAMID: k.owner.IAMID, AccountID: k.owner.AccountID,
	}
}

// admitIdentity returns whom a request's IAM token speaks for, or answers why it
// speaks for nobody.
func (s *Sim) admitIdentity(w http.ResponseWriter, r *http.Request) (who identity, ok bool) {
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	parsed, err := jwt.ParseSigned(bearer, []jose.SignatureAlgorithm{jose.RS256})
	if err == nil {
		var signer *signer
		if signer, err = s.rsa(); err == nil {
			_, err = signer.verify(parsed, &who)
		}
	}
	if err != nil || who.IAMID == "" {
		keyError(w, http.StatusUnauthorized, "invalid_token", "The provided IAM token is not valid.")
		return who, false
	}
	return who, true
}

// keyError answers with the shape that the key API's errors have.
func keyError(w http.ResponseWriter, status int, code, text string) {
	answer(w, status, map[string]any{
		"trace": newID(), "status_code": status, "errors": []any{map[string]any{"code": code, "message": text}},
	})
}

func (s *Sim) createKey(w http.ResponseWriter, r *http.Request) {
	who, ok := s.admitIdentity(w, r)
	if !ok {
		return
	}
	var wanted struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		identity
		StoreValue *bool `json:"store_value"`
	}
	err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&wanted)
	if err != nil || wanted.Name == "" || r.Header.Get("Content-Type") != "application/json" || wanted.StoreValue != nil {
		keyError(w, http.StatusBadRequest, "invalid_request", "The request is not valid.")
		return
	}
	if wanted.identity != who {
		keyError(w, http.StatusForbidden, "forbidden", "You are not authorized to create API keys of another identity.")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.liveKeys(who) >= keysPerIdentity {
		keyError(w, http.StatusConflict, "limit_reached", "The identity has the maximum number of API keys.")
		return
	}
	value, now := "made-"+newID()+newID(), time.Now()
	made := &keyState{
		id: "ApiKey-" + newID(), name: wanted.Name, description: wanted.Description, entityTag: newID(), owner: who, made: true,
		addedAt: now, knownAt: now.Add(s.keyDelay), listedAt: now.Add(s.listDelay),
	}
	s.keys[value] = made
	s.counts.KeysCreated++
	body := made.answer()
	body.Value = value
	answer(w, http.StatusCreated, body)
}

// liveKeys counts an identity's keys. The caller holds the lock.
func (s *Sim) liveKeys(of identity) (count int) {
	for _, state := range s.keys {
		if state.owner == of && state.deletedAt.IsZero() {
			count++
		}
	}
	return count
}

func (s *Sim) keyDetails(w http.ResponseWriter, r *http.Request) {
	who, ok := s.admitIdentity(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.keys[r.Header.Get("IAM-ApiKey")]
	if state == nil || !state.deletedAt.IsZero() || state.owner != who {
		keyError(w, http.StatusNotFound, "not_found", "The API key could not be found.")
		return
	}
	answer(w, http.StatusOK, state.answer())
}

func (s *Sim) deleteKey(w http.ResponseWriter, r *http.Request) {
	who, ok := s.admitIdentity(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.keys {
		if state.id != r.PathValue("id") || state.owner != who || !state.deletedAt.IsZero() {
			continue
		}
		if state.locked {
			keyError(w, http.StatusForbidden, "locked", "The API key is locked.")
			return
		}
		state.deletedAt = time.Now()
		s.counts.KeysDeleted++
		w.WriteHeader(http.StatusNoContent)
		return
	}
	keyError(w, http.StatusNotFound, "not_found", "The API key could not be found.")
}

func (s *Sim) listKeys(w http.ResponseWriter, r *http.Request) {
	who, ok := s.admitIdentity(w, r)
	if !ok {
		return
	}
	query := r.URL.Query()
	if query.Get("account_id") != who.AccountID || query.Get("iam_id") != who.IAMID {
		keyError(w, http.StatusForbidden, "forbidden", "You are not authorized to list API keys of another identity.")
		return
	}
	size := defaultPageSize
	if text := query.Get("pagesize"); text != "" {
		asked, err := strconv.Atoi(text)
		if err != nil || asked < 1 || asked > maxPageSize {
			keyError(w, http.StatusBadRequest, "invalid_request", "pagesize must be from 1 to 100.")
			return
		}
		size = asked
	}
	from, err := strconv.Atoi(strings.TrimPrefix(query.Get("pagetoken"), "from-"))
	if query.Get("pagetoken") != "" && (err != nil || from < 0) {
		keyError(w, http.StatusBadRequest, "invalid_request", "pagetoken is not valid.")
		return
	}
	listed := s.listedKeys(who)
	page := listed[min(from, len(listed)):min(from+size, len(listed))]
	body := map[string]any{"offset": from, "limit": size, "apikeys": page}
	if from+size < len(listed) {
		query.Set("pagetoken", "from-"+strconv.Itoa(from+size))
		next := url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path, RawQuery: query.Encode()}
		body["next"] = next.String()
	}
	answer(w, http.StatusOK, body)
}

// listedKeys are an identity's keys as the lists have them, oldest first.
func (s *Sim) listedKeys(of identity) []keyAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var states []*keyState
	for _, state := range s.keys {
		if state.owner == of && state.deletedAt.IsZero() && !time.Now().Before(state.listedAt) {
			states = append(states, state)
		}
	}
	slices.SortFunc(states, func(a, b *keyState) int {
		if order := a.addedAt.Compare(b.addedAt); order != 0 {
			return order
		}
		return strings.Compare(a.id, b.id)
	})
	listed := make([]keyAnswer, 0, len(states))
	for _, state := range states {
		listed = append(listed, state.answer())
	}
	return listed
}
