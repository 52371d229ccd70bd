// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package apicsim simulates what the engine talks to: API Connect's token
// services and the API manager that takes their tokens. It signs real JWTs,
// checks them, counts calls, and misbehaves on demand.
package apicsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// keptIssues is how many issued tokens are remembered, so that a long load run
// does not grow without end.
const keptIssues = 10_000

// Options configure a Sim.
type Options struct {
	// Keys are the API keys that are accepted from the start.
	Keys []string
	// TokenTTL is the life of the tokens sold; 0 is an hour.
	TokenTTL time.Duration
	// Logger gets a line for each call, without keys or tokens; it may be nil.
	Logger *slog.Logger
}

// Counts are the calls so far.
type Counts struct {
	// Exchanges are the requests to a token endpoint, those that a fault hit included.
	Exchanges int `json:"exchanges"`
	// Issued and Refused are the exchanges that ended with a right token or with
	// the refusal of a key.
	Issued  int `json:"issued"`
	Refused int `json:"refused"`
	// MeAccepted and MeRefused are the calls of the API manager.
	MeAccepted int `json:"me_accepted"`
	MeRefused  int `json:"me_refused"`
}

// IssuedToken is what is remembered of a token. It holds no secret.
type IssuedToken struct {
	// ID is the JWT's jti.
	ID string
	// KeyID is Sim.KeyID of the key that bought it.
	KeyID     string
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// Sim is the state of the simulated services. It is an http.Handler.
type Sim struct {
	signer *signer
	logger *slog.Logger
	mux    *http.ServeMux

	mu       sync.Mutex
	keys     map[string]bool
	tokenTTL time.Duration
	counts   Counts
	issued   []IssuedToken
	fault    *activeFault
}

// New returns a simulation with a signing key of its own.
func New(o Options) (*Sim, error) {
	signer, err := newSigner()
	if err != nil {
		return nil, err
	}
	s := &Sim{signer: signer, logger: o.Logger, mux: http.NewServeMux(), keys: make(map[string]bool), tokenTTL: o.TokenTTL}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.tokenTTL == 0 {
		s.tokenTTL = time.Hour
	}
	for _, key := range o.Keys {
		s.AddKey(key)
	}
	s.mux.HandleFunc("/apikey", s.exchange(s.login))
	s.mux.HandleFunc("GET /v1/me", s.me)
	return s, nil
}

// ServeHTTP answers for all services; their paths do not overlap.
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// AddKey makes a key acceptable.
func (s *Sim) AddKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key] = true
}

// RevokeKey makes a key unacceptable. Tokens that it bought live on, as IBM's do.
func (s *Sim) RevokeKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, key)
}

// SetTokenTTL changes the life of the tokens sold from now on.
func (s *Sim) SetTokenTTL(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokenTTL = d
}

// Counts returns the calls so far.
func (s *Sim) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Issued returns the last ten thousand tokens, oldest first.
func (s *Sim) Issued() []IssuedToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]IssuedToken(nil), s.issued...)
}

// KeyID names a key without giving it away.
func (*Sim) KeyID(key string) string {
	digest := sha256.Sum256([]byte(key))
	return hex.EncodeToString(digest[:8])
}

func (s *Sim) accepts(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[key]
}

func (s *Sim) count(change func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.counts)
}

// issue signs a token for a key and remembers it.
func (s *Sim) issue(key string) (string, error) {
	claims := s.newClaims(key)
	token, err := s.signer.sign(claims)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Issued++
	if len(s.issued) >= 2*keptIssues {
		s.issued = append([]IssuedToken(nil), s.issued[keptIssues:]...)
	}
	s.issued = append(s.issued, IssuedToken{
		ID: claims["jti"].(string), KeyID: s.KeyID(key),
		IssuedAt: time.Unix(claims["iat"].(int64), 0), ExpiresAt: time.Unix(claims["exp"].(int64), 0),
	})
	s.logger.Info("token issued", "token_id", claims["jti"], "key_id", s.KeyID(key))
	return token, nil
}

func (s *Sim) answer(w http.ResponseWriter, r *http.Request, status int, body any) {
	s.logger.Info("answered", "method", r.Method, "path", r.URL.Path, "status", status)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that is gone does not care for the error.
	_ = json.NewEncoder(w).Encode(body)
}
