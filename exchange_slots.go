// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"sync"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// exchangeSlots bound the exchanges of each config by its name, whichever entries the
// name has: the one in use, those it replaced, and those that a write tries. The zero
// value is ready to use.
type exchangeSlots struct {
	mu     sync.Mutex
	byName map[string]*heldSlots
}

type heldSlots struct {
	tokensource.Slots
	holders int
}

// acquire returns name's slots and the function that gives them back, which is called
// once.
func (s *exchangeSlots) acquire(name string) (slots *tokensource.Slots, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.byName[name]
	if !ok {
		held = &heldSlots{}
		if s.byName == nil {
			s.byName = make(map[string]*heldSlots)
		}
		s.byName[name] = held
	}
	held.holders++
	return &held.Slots, func() { s.release(name) }
}

func (s *exchangeSlots) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.byName[name]
	held.holders--
	if held.holders == 0 {
		delete(s.byName, name)
	}
}
