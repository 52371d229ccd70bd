// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// KeyCall names a call of a key API, IAM's or the platform's.
type KeyCall string

// The calls. CallAny stands for all of them. The platform has no details, disable and
// enable.
const (
	CallAny     KeyCall = ""
	CallCreate  KeyCall = "create"
	CallDelete  KeyCall = "delete"
	CallDetails KeyCall = "details"
	CallDisable KeyCall = "disable"
	CallEnable  KeyCall = "enable"
	CallGet     KeyCall = "get"
	CallList    KeyCall = "list"
)

func keyCalls() []KeyCall {
	return []KeyCall{CallAny, CallCreate, CallDelete, CallDetails, CallDisable, CallEnable, CallGet, CallList}
}

// KeyFault says how a call of the key API misbehaves.
type KeyFault struct {
	// Call is the call that is hit.
	Call KeyCall
	// After has the fault take the place of the answer to a call that has had its
	// effect. Otherwise the call has no effect, unless the fault ends in a right answer.
	After bool
	// These are Fault's, of which {key} is the key or, in a call that holds none, the
	// bearer, {field} is id, and there is no {token}.
	Kind            FaultKind
	Times           int
	Status          int
	RetryAfter      string
	ContentEncoding string
	Latency         time.Duration
	RedirectTo      string
	Body            string
}

func (f KeyFault) fault() Fault {
	return Fault{
		Kind: f.Kind, Times: f.Times, Status: f.Status, RetryAfter: f.RetryAfter, ContentEncoding: f.ContentEncoding,
		Latency: f.Latency, RedirectTo: f.RedirectTo, Body: f.Body,
	}
}

// activeKeyFault is a KeyFault in force.
type activeKeyFault struct {
	activeFault
	after bool
}

// InjectKeyFault puts a fault in the place of the one that its call has, if any. A
// call's own fault counts before that of CallAny.
func (s *Sim) InjectKeyFault(f KeyFault) {
	s.replaceKeyFault(f.Call, &activeKeyFault{
		activeFault: activeFault{Fault: f.fault(), left: f.Times, end: make(chan struct{})}, after: f.After,
	})
}

// ClearKeyFaults makes the key API behave again.
func (s *Sim) ClearKeyFaults() {
	for _, call := range keyCalls() {
		s.replaceKeyFault(call, nil)
	}
}

func (s *Sim) replaceKeyFault(call KeyCall, f *activeKeyFault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if present := s.keyFaults[call]; present != nil {
		close(present.end)
	}
	s.keyFaults[call] = f
}

// nextKeyFault returns the fault that hits this call, or nil.
func (s *Sim) nextKeyFault(call KeyCall) *activeKeyFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, candidate := range []KeyCall{call, CallAny} {
		if f := s.keyFaults[candidate]; f != nil && f.hits() {
			return f
		}
	}
	return nil
}

// maxKeyCallBytes is the most that is read of a request.
const maxKeyCallBytes = 1 << 16

// keyAPI is what the key API of one service has of its own.
type keyAPI struct {
	// callerOf returns whose token a request carries, or the refusal of one without.
	callerOf func(*http.Request) (caller, *reply)
	// unreadable is the answer to a request whose body can't be read.
	unreadable func() reply
	// spoiltError is an error's body that has a secret in all of its fields, in place of {key}.
	spoiltError string
}

// iamKeyAPI is the key API of IBM Cloud IAM.
func (s *Sim) iamKeyAPI() keyAPI {
	return keyAPI{
		callerOf: s.keyCaller,
		unreadable: func() reply {
			return keyError(http.StatusBadRequest, "bad_request", "", "The body can't be read.")
		},
		spoiltError: `{"trace":"{key}","status_code":"{key}","errors":[{"code":"{key}","message_code":"{key}","message":"{key}"}]}`,
	}
}

// serveKeyCall answers a call of a key API: it counts it, lets the fault in force
// act, and finds out who calls.
func (s *Sim) serveKeyCall(api keyAPI, call KeyCall, perform func(*http.Request, caller) reply) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.count(func(c *Counts) { c.KeyCalls++ })
		w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
		// The server notices that a client is gone only once the body is read.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxKeyCallBytes))
		if err != nil {
			api.unreadable().write(w)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		admitted := func() reply {
			by, refused := api.callerOf(r)
			if refused != nil {
				return *refused
			}
			return perform(r, by)
		}
		rightly := func(w http.ResponseWriter) { admitted().write(w) }
		f := s.nextKeyFault(call)
		if f == nil {
			rightly(w)
			return
		}
		if f.after {
			rightly = admitted().write
		}
		s.actOnKeys(f, api, rightly, w, r)
	}
}

func (s *Sim) actOnKeys(f *activeKeyFault, api keyAPI, rightly func(http.ResponseWriter), w http.ResponseWriter, r *http.Request) {
	echo := cmp.Or(r.Header.Get("IAM-ApiKey"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	// Not the whole of it, whose count of hits other calls change.
	acting := activeFault{Fault: f.Fault, end: f.end}
	s.act(&acting, endpoint{field: "id", spoiltError: api.spoiltError}, echo, rightly, w, r)
}

// keyFaultJSON is a KeyFault as JSON: a Fault's with two more fields.
type keyFaultJSON struct {
	Call  KeyCall `json:"call"`
	After bool    `json:"after"`
	faultJSON
}

// keyFault says what is wrong with a fault that came from another process.
func (read keyFaultJSON) keyFault() (KeyFault, error) {
	f, err := read.fault()
	switch {
	case err != nil:
		return KeyFault{}, err
	case f.Service != "":
		return KeyFault{}, errors.New("service is for token services")
	case !slices.Contains(keyCalls(), read.Call):
		return KeyFault{}, fmt.Errorf("there is no call %q", read.Call)
	}
	return KeyFault{
		Call: read.Call, After: read.After, Kind: f.Kind, Times: f.Times, Status: f.Status, RetryAfter: f.RetryAfter,
		ContentEncoding: f.ContentEncoding, Latency: f.Latency, RedirectTo: f.RedirectTo, Body: f.Body,
	}, nil
}
