// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxFaultBytes is the most that is read of a fault sent as JSON.
const maxFaultBytes = 1 << 20

// Control is the handler by which another process steers a simulation: GET
// /counts, PUT /fault with a Fault as JSON, DELETE /fault, GET /keys, PUT
// /key_fault with a KeyFault, DELETE /key_fault, PUT /key_delay with
// {"accepted":"5s","listed":"0s"}. It does not check who asks, so it belongs on
// loopback.
func (s *Sim) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, s.Counts())
	})
	mux.HandleFunc("PUT /fault", put(func(f Fault) error {
		if err := f.check(); err != nil {
			return err
		}
		s.Inject(f)
		return nil
	}))
	mux.HandleFunc("DELETE /fault", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFault()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"keys": s.Keys()})
	})
	mux.HandleFunc("PUT /key_fault", put(func(f KeyFault) error {
		if err := f.check(); err != nil {
			return err
		}
		s.InjectKeyFault(f)
		return nil
	}))
	mux.HandleFunc("DELETE /key_fault", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearKeyFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("PUT /key_delay", put(s.putKeyDelay))
	return mux
}

// keyDelays are Go durations as text; an empty one is none.
type keyDelays struct {
	Accepted string `json:"accepted"`
	Listed   string `json:"listed"`
}

func (s *Sim) putKeyDelay(d keyDelays) error {
	accepted, err := time.ParseDuration(cmp.Or(d.Accepted, "0"))
	if err != nil {
		return fmt.Errorf("accepted: %w", err)
	}
	listed, err := time.ParseDuration(cmp.Or(d.Listed, "0"))
	if err != nil {
		return fmt.Errorf("listed: %w", err)
	}
	s.SetKeyDelay(accepted)
	s.SetListDelay(listed)
	return nil
}

// put takes a T as JSON and hands it to set, whose error says what is wrong with it.
func put[T any](set func(T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFaultBytes))
		if err != nil {
			answer(w, http.StatusBadRequest, message("the body cannot be read"))
			return
		}
		var value T
		if err := json.Unmarshal(body, &value); err != nil {
			answer(w, http.StatusBadRequest, message("the body is not what it should be: "+err.Error()))
			return
		}
		if err := set(value); err != nil {
			answer(w, http.StatusBadRequest, message(err.Error()))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}
