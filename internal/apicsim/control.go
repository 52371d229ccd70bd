// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"encoding/json"
	"io"
	"net/http"
)

// maxFaultBytes is the most that is read of a fault sent as JSON.
const maxFaultBytes = 1 << 20

// Control is the handler by which another process steers a simulation: GET
// /counts, PUT /fault with a Fault as JSON, DELETE /fault. It does not check who
// asks, so it belongs on loopback.
func (s *Sim) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, s.Counts())
	})
	mux.HandleFunc("PUT /fault", s.putFault)
	mux.HandleFunc("DELETE /fault", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFault()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func (s *Sim) putFault(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFaultBytes))
	if err != nil {
		answer(w, http.StatusBadRequest, message("the body cannot be read"))
		return
	}
	var f Fault
	if err := json.Unmarshal(body, &f); err != nil {
		answer(w, http.StatusBadRequest, message("the body is no fault: "+err.Error()))
		return
	}
	if err := f.check(); err != nil {
		answer(w, http.StatusBadRequest, message(err.Error()))
		return
	}
	s.Inject(f)
	w.WriteHeader(http.StatusNoContent)
}
