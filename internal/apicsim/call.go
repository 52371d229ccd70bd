// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
)

// call is what the log will say of one request.
type call struct {
	// status is 0 if there was no answer.
	status  int
	tokenID string
	fault   FaultKind
}

type callKey struct{}

// callOf returns the call that ServeHTTP put into a request's context.
func callOf(r *http.Request) *call { return r.Context().Value(callKey{}).(*call) }

// statusWriter notes the status that is answered.
type statusWriter struct {
	http.ResponseWriter
	call *call
}

func (w statusWriter) WriteHeader(status int) {
	w.call.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w statusWriter) Write(p []byte) (int, error) {
	if w.call.status == 0 {
		w.call.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and take over the connection.
func (w statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ServeHTTP answers for all services; their paths do not overlap.
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	// Deferred, because a fault may end the handler with a panic.
	defer s.log(c, r)
	s.mux.ServeHTTP(statusWriter{w, c}, r)
}

// log writes the one line that a call gets.
func (s *Sim) log(c *call, r *http.Request) {
	// The pattern's path, because a client that builds its URL wrongly may have put a
	// key into the request's.
	path := "(unknown)"
	if start := strings.Index(r.Pattern, "/"); start >= 0 {
		path = r.Pattern[start:]
	}
	attrs := []slog.Attr{slog.String("method", r.Method), slog.String("path", path), slog.Int("status", c.status)}
	if c.tokenID != "" {
		attrs = append(attrs, slog.String("token_id", c.tokenID))
	}
	if c.fault != "" {
		attrs = append(attrs, slog.String("fault", string(c.fault)))
	}
	s.logger.LogAttrs(context.Background(), slog.LevelInfo, "call", attrs...)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that is gone does not care for the error.
	_ = json.NewEncoder(w).Encode(body)
}

func message(text string) map[string]any { return map[string]any{"message": text} }
