// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package apicsim simulates what the engine talks to: API Connect's token
// services, the API manager that accepts their tokens, and the APIs for the life of API
// keys, IBM Cloud IAM's and the platform's. It signs real JWTs, checks them, counts
// calls, and misbehaves on demand.
package apicsim

import (
	"crypto/ecdsa"
	"log/slog"
	"net/http"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// keptIssues is how many issued tokens are remembered, so that a long load run
// does not grow without end.
const keptIssues = 10_000

// Options configure a Sim.
type Options struct {
	// Keys are the API keys that are accepted from the start.
	Keys []string
	// TokenTTL is the lifetime of the tokens issued, which end on a whole second; 0 is
	// an hour.
	TokenTTL time.Duration
	// ClientID and ClientSecret are what the platform service wants beside the key.
	ClientID, ClientSecret string
	// Logger gets one line for each call, without keys or tokens; it may be nil.
	Logger *slog.Logger
	// Key is of P-256 and signs the tokens of all services, for tests: keys of the kinds
	// that the services have take ten times as long to sign, and an RSA key long to make.
	// Nil makes keys of these kinds.
	Key *ecdsa.PrivateKey
}

// Counts are the calls so far.
type Counts struct {
	// Exchanges are the requests to a token endpoint, those that a fault hit included.
	Exchanges int `json:"exchanges"`
	// InFlight are those that are not answered yet, and MostInFlight the most that
	// there were at a time.
	InFlight     int `json:"in_flight"`
	MostInFlight int `json:"most_in_flight"`
	// Issued and Refused are the exchanges that ended with a right token or with
	// the refusal of a key. What a fault answers in their place is neither.
	Issued  int `json:"issued"`
	Refused int `json:"refused"`
	// MeAccepted and MeRefused are the calls of the API manager.
	MeAccepted int `json:"me_accepted"`
	MeRefused  int `json:"me_refused"`
	// KeyCalls are the requests to the key APIs, those that a fault hit included.
	KeyCalls int `json:"key_calls"`
	// KeysCreated and KeysDeleted count what those calls did, whether or not a fault
	// took the place of the answer.
	KeysCreated int `json:"keys_created"`
	KeysDeleted int `json:"keys_deleted"`
}

// IssuedToken is what is remembered of a token. It holds no secret.
type IssuedToken struct {
	// ID is the JWT's jti.
	ID string
	// KeyID is Sim.KeyID of the key that was exchanged for it.
	KeyID string
	// IssuedAt and ExpiresAt are the JWT's iat and exp, in whole seconds.
	IssuedAt, ExpiresAt time.Time
}

// Sim is the state of the simulated services. It is an http.Handler.
type Sim struct {
	// The login service signs with ES384, the others with RS256, and all with ES256 if there
	// is an Options.Key.
	ecdsa, rsa func() (*signer, error)
	logger     *slog.Logger
	mux        *http.ServeMux
	clientID   string
	secret     string

	mu sync.Mutex
	// keys holds every key ever added, by its value, the deleted ones too.
	keys map[string]*keyState
	// keySerial counts the keys ever added.
	keySerial int
	lag       Lag
	// viewCalls counts the calls of each view since the lag was set.
	viewCalls map[view]int
	// nameLimit is the most characters that a created key's name keeps; 0 is all.
	nameLimit int
	// platformKeys is what the platform makes of the keys that it is asked for.
	platformKeys PlatformKeys
	tokenTTL     time.Duration
	// clockSkew is how far the services' clock is ahead of the host's, negative if it is behind.
	clockSkew time.Duration
	counts    Counts
	issued    []IssuedToken
	fault     *activeFault
	keyFaults map[KeyCall]*activeKeyFault
}

// New returns a simulation with signing keys of its own. It fails only if they
// cannot be made.
func New(o Options) (*Sim, error) {
	s := &Sim{
		logger: o.Logger, mux: http.NewServeMux(), clientID: o.ClientID, secret: o.ClientSecret,
		keys: make(map[string]*keyState), keyFaults: make(map[KeyCall]*activeKeyFault), tokenTTL: o.TokenTTL,
		ecdsa: sync.OnceValues(newECDSASigner), rsa: sync.OnceValues(newRSASigner),
		viewCalls: make(map[view]int),
	}
	if o.Key != nil {
		s.ecdsa = sync.OnceValues(func() (*signer, error) { return newSigner(jose.ES256, o.Key) })
		s.rsa = s.ecdsa
	}
	if _, err := s.ecdsa(); err != nil {
		return nil, err
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.tokenTTL == 0 {
		s.tokenTTL = time.Hour
	}
	for _, key := range o.Keys {
		s.AddKey(key)
	}
	s.mux.HandleFunc("/apikey", s.serve(s.login()))
	s.mux.HandleFunc("/identity/token", named(s.serve(s.iam())))
	s.mux.HandleFunc("/api/token", s.serve(s.platform()))
	iam := s.iamKeyAPI()
	s.mux.HandleFunc("POST /v1/apikeys", named(s.serveKeyCall(iam, CallCreate, s.createKey)))
	s.mux.HandleFunc("GET /v1/apikeys", named(s.serveKeyCall(iam, CallList, s.listKeys)))
	s.mux.HandleFunc("GET /v1/apikeys/details", named(s.serveKeyCall(iam, CallDetails, s.keyDetails)))
	s.mux.HandleFunc("GET /v1/apikeys/{id}", named(s.serveKeyCall(iam, CallGet, s.getKey)))
	s.mux.HandleFunc("DELETE /v1/apikeys/{id}", named(s.serveKeyCall(iam, CallDelete, s.deleteKey)))
	s.mux.HandleFunc("POST /v1/apikeys/{id}/disable", named(s.serveKeyCall(iam, CallDisable, s.disableKey)))
	s.mux.HandleFunc("DELETE /v1/apikeys/{id}/disable", named(s.serveKeyCall(iam, CallEnable, s.enableKey)))
	platform := s.platformKeyAPI()
	s.mux.HandleFunc("POST /api/cloud/api-keys", s.serveKeyCall(platform, CallCreate, s.createPlatformKey))
	s.mux.HandleFunc("GET /api/cloud/api-keys", s.serveKeyCall(platform, CallList, s.listPlatformKeys))
	s.mux.HandleFunc("GET /api/cloud/api-keys/{id}", s.serveKeyCall(platform, CallGet, s.getPlatformKey))
	s.mux.HandleFunc("DELETE /api/cloud/api-keys/{id}", s.serveKeyCall(platform, CallDelete, s.deletePlatformKey))
	s.mux.HandleFunc("GET /v1/me", s.me)
	s.mux.HandleFunc("GET /api/me", s.me)
	s.mux.HandleFunc("GET /api/orgs", s.orgs)
	return s, nil
}

// SetTokenTTL changes the lifetime of the tokens issued from now on.
func (s *Sim) SetTokenTTL(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokenTTL = d
}

// SetClockSkew makes the services' clock differ from the host's: the tokens that
// they issue, and the dates of their answers.
func (s *Sim) SetClockSkew(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clockSkew = d
}

// now is the time by the services' clock.
func (s *Sim) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock()
}

// clock is now for callers that hold the lock.
func (s *Sim) clock() time.Time { return time.Now().Add(s.clockSkew) }

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
	oldest := max(0, len(s.issued)-keptIssues)
	return append([]IssuedToken(nil), s.issued[oldest:]...)
}

func (s *Sim) count(change func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.counts)
}

// issue signs a token for a key and remembers it.
func (s *Sim) issue(e endpoint, key string) (string, map[string]any, error) {
	claims := s.newClaims(e, key)
	token, err := e.sign(claims)
	if err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Issued++
	if len(s.issued) >= 2*keptIssues {
		// Only now and then, so that a token does not cost ten thousand copies.
		s.issued = append([]IssuedToken(nil), s.issued[keptIssues:]...)
	}
	s.issued = append(s.issued, IssuedToken{
		ID: claims["jti"].(string), KeyID: s.KeyID(key),
		IssuedAt: time.Unix(claims["iat"].(int64), 0), ExpiresAt: time.Unix(claims["exp"].(int64), 0),
	})
	return token, claims, nil
}
