// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// token is what Vault answers of a token, as far as it is needed here.
type token struct {
	Value     string    `json:"token"`
	ID        string    `json:"token_id"`
	APIURL    string    `json:"api_url"`
	ExpiresAt time.Time `json:"expires_at"`
	// TTL is the seconds after which a read gets a newer token.
	TTL int64 `json:"ttl"`
}

// tokenSource keeps the token of one path, and reads it again once its TTL is
// over. Any number of goroutines may use it.
type tokenSource struct {
	vault *api.Client
	path  string

	// mu is held while Vault is asked, so that one goroutine asks for all.
	mu      sync.Mutex
	current token
	due     time.Time
}

// Token returns the current token. It fails if Vault does, unless the token
// from before is still valid.
func (s *tokenSource) Token(ctx context.Context) (token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// From before the read, however long it takes.
	asked := time.Now()
	if asked.Before(s.due) {
		return s.current, nil
	}
	next, err := s.read(ctx)
	if err == nil {
		s.current, s.due = next, asked.Add(time.Duration(next.TTL)*time.Second)
		return next, nil
	}
	if !time.Now().Before(s.current.ExpiresAt) {
		return token{}, err
	}
	log.Printf("warning: %v; going on with a token that is valid until %s", err, s.current.ExpiresAt)
	s.due = asked.Add(time.Second)
	return s.current, nil
}

func (s *tokenSource) read(ctx context.Context) (token, error) {
	secret, err := s.vault.Logical().ReadWithContext(ctx, s.path)
	if err != nil {
		return token{}, err
	}
	if secret == nil {
		return token{}, fmt.Errorf("nothing is mounted at %s", s.path)
	}
	for _, warning := range secret.Warnings {
		log.Print("warning: ", warning)
	}
	data, err := json.Marshal(secret.Data)
	if err != nil {
		return token{}, err
	}
	var answered token
	return answered, json.Unmarshal(data, &answered)
}
