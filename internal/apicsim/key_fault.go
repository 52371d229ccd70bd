// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
)

// KeyFault says how a call of IAM's key API misbehaves. The fields have the same
// meaning as Fault's.
type KeyFault struct {
	// Call is CallCreate, CallDelete, CallDetails or CallList.
	Call string
	// After has the call take its effect first, so that only its answer is wrong.
	After  bool
	Kind   FaultKind
	Status int
	// Times is how many calls are hit; 0 is all until the faults are cleared.
	Times int
}

// keyFault is a fault of the key API in force.
type keyFault struct {
	activeFault
	call  string
	after bool
}

// InjectKeyFault adds a fault to those of the key API that are in force. The first
// one of a call hits it.
func (s *Sim) InjectKeyFault(f KeyFault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keyFaults = append(s.keyFaults, &keyFault{
		activeFault: activeFault{
			Fault: Fault{Kind: f.Kind, Status: f.Status, Times: f.Times}, left: f.Times, end: make(chan struct{}),
		},
		call: f.Call, after: f.After,
	})
}

// ClearKeyFaults makes the key API behave again.
func (s *Sim) ClearKeyFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.keyFaults {
		close(f.end)
	}
	s.keyFaults = nil
}

// nextKeyFault returns the fault that hits a call, or nil.
func (s *Sim) nextKeyFault(call string) *keyFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.keyFaults, func(f *keyFault) bool {
		return f.call == call && (f.Times == 0 || f.left > 0)
	})
	if at < 0 {
		return nil
	}
	s.keyFaults[at].left--
	return s.keyFaults[at]
}

// serveKeyCall answers a call of the key API, as the fault in force has it.
func (s *Sim) serveKeyCall(call string, handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f := s.nextKeyFault(call)
		if f == nil {
			handle(w, r)
			return
		}
		rightly := func(w http.ResponseWriter) { handle(w, r) }
		if f.after {
			rightly = s.holdBack(handle, r)
		}
		// A careless service echoes what it was sent.
		echo := cmp.Or(r.Header.Get("IAM-ApiKey"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		s.act(&f.activeFault, endpoint{name: "keys", field: "apikey", signer: s.rsa}, echo, rightly, w, r)
	}
}

// holdBack lets a call take its effect and returns what gives its answer.
func (*Sim) holdBack(handle http.HandlerFunc, r *http.Request) func(http.ResponseWriter) {
	held := httptest.NewRecorder()
	handle(held, r)
	return func(w http.ResponseWriter) {
		for name, values := range held.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(held.Code)
		_, _ = w.Write(held.Body.Bytes())
	}
}
