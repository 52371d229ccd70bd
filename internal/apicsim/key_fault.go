// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"bytes"
	"cmp"
	"encoding/json"
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

// keyFaultKinds are the kinds that do not need a token to spoil. In the place of
// the token they spoil the answer's id.
func keyFaultKinds() []FaultKind {
	return []FaultKind{
		"", KindStatus, KindReset, KindResetMidBody, KindHang, KindRedirect, KindEndlessBody, KindTrickle, KindGzip,
		KindGzipBroken, KindNotJSON, KindEmptyBody, KindNoJWT, KindJWTNotString, KindNotJWT, KindInvalidUTF8, KindErrorBody,
	}
}

// KeyFault says how a call of the key API misbehaves.
type KeyFault struct {
	// Call is the call that is hit.
	Call KeyCall
	// After has the fault take the place of the answer to a call that has had its
	// effect. Otherwise the call has no effect, unless the fault ends in a right answer.
	After bool
	// Kind is a kind that needs no token. What is echoed is the key or, in a call that
	// holds none, the bearer. The other fields are Fault's.
	Kind       FaultKind
	Times      int
	Status     int
	RetryAfter string
	Latency    time.Duration
	RedirectTo string
	Body       string
}

func (f KeyFault) fault() Fault {
	return Fault{
		Kind: f.Kind, Times: f.Times, Status: f.Status, RetryAfter: f.RetryAfter,
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
	// spoiltError is an error's body that has a secret in all of its fields, in place of %[1]q.
	spoiltError string
}

// iamKeyAPI is the key API of IBM Cloud IAM.
func (s *Sim) iamKeyAPI() keyAPI {
	return keyAPI{
		callerOf: s.keyCaller,
		unreadable: func() reply {
			return keyError(http.StatusBadRequest, "bad_request", "", "The body can't be read.")
		},
		spoiltError: `{"trace":%[1]q,"status_code":%[1]q,"errors":[{"code":%[1]q,"message_code":%[1]q,"message":%[1]q}]}`,
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
	if !slices.Contains(keyFaultKinds(), acting.Kind) {
		acting.Kind = "unknown to the key API"
	}
	if acting.Kind == KindStatus && acting.Body == "" {
		echoTransactionID(w, echo)
		acting.Body = fmt.Sprintf(api.spoiltError, echo)
	}
	s.act(&acting, endpoint{name: "keys", field: "id"}, echo, rightly, w, r)
}

// keyFaultJSON is a KeyFault as JSON: a Fault's with two more fields.
type keyFaultJSON struct {
	Call  KeyCall `json:"call"`
	After bool    `json:"after"`
	faultJSON
}

// MarshalJSON writes what UnmarshalJSON reads.
func (f KeyFault) MarshalJSON() ([]byte, error) {
	return json.Marshal(keyFaultJSON{f.Call, f.After, f.fault().asJSON()})
}

// UnmarshalJSON is as strict as Fault's.
func (f *KeyFault) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var read keyFaultJSON
	if err := decoder.Decode(&read); err != nil {
		return err
	}
	fault, err := read.fault()
	if err != nil {
		return err
	}
	if fault.Service != "" || fault.ExpiresIn != "" {
		return errors.New("service and expires_in are for token services")
	}
	*f = KeyFault{
		Call: read.Call, After: read.After, Kind: fault.Kind, Times: fault.Times, Status: fault.Status,
		RetryAfter: fault.RetryAfter, Latency: fault.Latency, RedirectTo: fault.RedirectTo, Body: fault.Body,
	}
	return nil
}

// check says what is wrong with a fault that came from another process.
func (f KeyFault) check() error {
	if !slices.Contains(keyCalls(), f.Call) {
		return fmt.Errorf("there is no call %q", f.Call)
	}
	if !slices.Contains(keyFaultKinds(), f.Kind) {
		return fmt.Errorf("there is no fault of kind %q in the key API", f.Kind)
	}
	return f.fault().check()
}
