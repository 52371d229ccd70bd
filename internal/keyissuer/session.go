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
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// pageSize is IAM's own default. Its longest pages, of 100 keys, could exceed
	// what is read of an answer; the platform's too.
	pageSize = 20
	// maxPages and maxFound are far beyond the 20 keys that an identity of IAM's has by
	// default. What is found is remembered and stored, with a CA bundle each; what is
	// listed is not.
	maxPages  = 50
	maxFound  = 100
	maxListed = maxPages * pageSize
	// findTime bounds the reading of all pages, and is longer than three attempts at one
	// take. The caller who waits has the claim of a config, which nobody can write or delete
	// meanwhile.
	findTime = 40 * time.Second
)

// session is what sessions with all issuers have in common: calls with a bearer token
// about the keys of one address. All errors of its methods are an *upstream.Error. The
// error of a call about one key is rotation.ErrNoSuchKey too if the issuer itself answers
// that the key does not exist; a 404 of a proxy, for example, does not count.
type session struct {
	// keysURL is the address of all keys; a slash and an id after it are the address of one.
	keysURL   string
	caller    *upstream.Caller
	transport *upstream.Transport
	clock     clock
	bearer    upstream.Secret
	// secrets are all secrets that requests may hold, which no error may contain.
	secrets []upstream.Secret
	// explain puts a 4xx that answers an action into words. own says that the issuer
	// itself answered it, not something on the way.
	explain func(wanted action, a *upstream.Answer, secrets []upstream.Secret) (because upstream.Refusal, own bool)
}

// open gives a session what its calls need: a caller, and a transport that trusts
// caCert. It makes no call.
func (s *session) open(o upstream.Options, transports *upstream.Transports, caCert string) error {
	o.Transport = &s.clock
	caller, err := upstream.NewCaller(o)
	if err != nil {
		return &upstream.Error{Service: o.Service, Host: "an address that does not parse", Reason: "was not asked", Advice: "check " + o.URLField}
	}
	s.caller = caller
	if s.transport, err = transports.New(caCert); err != nil {
		return caller.NotSent("ca_cert " + err.Error())
	}
	s.clock.transport = s.transport
	return nil
}

// Format keeps the secrets unprinted: their own Format is not called for fields
// that are not exported.
func (*session) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[session with a key issuer]") }

// Close closes the session's connections; issuers know of no sessions.
func (s *session) Close() { s.transport.CloseIdleConnections() }

// Now is the time by the issuer's clock: the Date of its last answer and what has passed
// since. It errs on the early side, by a second and the time that the answer took.
func (s *session) Now() time.Time { return s.clock.now() }

// read returns the key that an answer describes, which must be the one called id unless id
// is empty.
func (s *session) read(ctx context.Context, r upstream.Request, wanted action, id string, parse func([]byte, ...upstream.Secret) (rotation.Details, string)) (rotation.Details, error) {
	a, err := s.send(ctx, r, wanted)
	if err != nil {
		return rotation.Details{}, err
	}
	key, reason := parse(a.Body, s.secrets...)
	if reason == "" && id != "" && key.ID != id {
		reason = "answered another key than was asked for"
	}
	if reason != "" {
		return rotation.Details{}, s.caller.InvalidResponse(a, reason)
	}
	return key, nil
}

// create asks for a key. The request is never repeated once the issuer may have acted
// on it: if the error's OutcomeUnknown is set and no id comes with it, there may be a
// key whose value is lost, and Find finds it by its name. A key whose id comes with an
// error exists, is of no use, and has to be deleted.
func (s *session) create(ctx context.Context, wanted any, parse func([]byte, ...upstream.Secret) (rotation.Details, upstream.Secret, string)) (rotation.Details, rotation.Secret, error) {
	body, err := json.Marshal(wanted)
	if err != nil {
		return rotation.Details{}, "", s.caller.NotSent("the new key can't be described in JSON")
	}
	r := s.request(http.MethodPost, "")
	r.Header.Set("Content-Type", "application/json")
	r.Body, r.Once = body, true
	a, err := s.send(ctx, r, createKey)
	if err != nil {
		return rotation.Details{}, "", err
	}
	created, value, reason := parse(a.Body, s.secrets...)
	if created.ID != "" && created.CreatedAt.IsZero() {
		created.CreatedAt = s.Now()
	}
	if reason != "" {
		return created, value, s.caller.InvalidResponse(a, reason)
	}
	return created, value, nil
}

// listPage is one page of a list of keys.
type listPage struct {
	keys []rotation.Details
	// next is what the query for the next page adds, nil on the last page.
	next url.Values
}

// find returns the matching keys of all pages of a list; none is not an error, and more
// than most are one. Lists may lag behind creations by seconds.
func (s *session) find(ctx context.Context, query url.Values, most int, parse func([]byte) (listPage, string), matches func(rotation.Details) bool) ([]rotation.Details, error) {
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	var found []rotation.Details
	for page := 1; ; page++ {
		a, err := s.send(ctx, s.request(http.MethodGet, "?"+query.Encode()), listKeys)
		if err != nil {
			return nil, err
		}
		listed, reason := parse(a.Body)
		if reason != "" {
			return nil, s.caller.InvalidResponse(a, reason)
		}
		for _, k := range listed.keys {
			if matches(k) {
				found = append(found, k)
			}
		}
		if len(found) > most {
			return nil, s.caller.InvalidResponse(a, "answered a list of more API keys than an identity can have")
		}
		if listed.next == nil {
			return found, nil
		}
		if page == maxPages {
			return nil, s.caller.InvalidResponse(a, "answered a list of API keys that does not end")
		}
		for name, values := range listed.next {
			query[name] = values
		}
	}
}

// change makes a call of whose answer only the status matters.
func (s *session) change(ctx context.Context, method, id, part string, wanted action) error {
	r, err := s.requestFor(method, id, part)
	if err != nil {
		return err
	}
	_, err = s.send(ctx, r, wanted)
	return err
}

// requestFor is a request about one key, or the error for an id that can't be one.
func (s *session) requestFor(method, id, part string) (upstream.Request, error) {
	if !identifier.MatchString(id) {
		return upstream.Request{}, s.caller.NotSent("the id of the key can't be one")
	}
	return s.request(method, "/"+url.PathEscape(id)+part), nil
}

// request returns a request for a path below the address of all keys.
func (s *session) request(method, path string) upstream.Request {
	return upstream.Request{
		Method: method, URL: s.keysURL + path,
		Header: http.Header{"Authorization": {"Bearer " + string(s.bearer)}},
	}
}

func (s *session) send(ctx context.Context, r upstream.Request, wanted action) (*upstream.Answer, error) {
	r.Secrets = s.secrets
	gone := false
	a, err := s.caller.Send(ctx, r, func(a *upstream.Answer) upstream.Refusal {
		because, own := s.explain(wanted, a, s.secrets)
		gone = own && a.Status == http.StatusNotFound && wanted.isAboutOneKey()
		return because
	})
	var failed *upstream.Error
	if gone && errors.As(err, &failed) {
		return nil, &keyError{failed, rotation.ErrNoSuchKey}
	}
	return a, err
}
