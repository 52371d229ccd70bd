// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

const (
	// failureMemory is how long after a backoff's end the failures in a row still
	// count though no config in memory has the key. It is ten times the longest
	// backoff after a refusal: to delete a config in order to begin anew takes longer
	// than to wait for the next attempt.
	failureMemory = 10 * time.Minute

	// maxIdleBackoffs bounds the memory of keys that no config in memory has, which
	// anyone who may write a config can make up, with a service of their own that asks for
	// a long backoff. What must not be displaced is held.
	maxIdleBackoffs = 1000
)

// backoffID is a key together with where it is sent, as the first half of a SHA-256 digest.
type backoffID [sha256.Size / 2]byte

// newBackoffID leaves out what a config's writer may change without the key, such as
// the client credentials: with another id comes another attempt.
func newBackoffID(c *config) backoffID {
	return backoffIDOf(string(c.TokenService), c.tokenURL(), c.CACert, c.APIKey)
}

func backoffIDOf(parts ...string) backoffID {
	digest := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(digest, "%d:%s", len(part), part)
	}
	return backoffID(digest.Sum(nil)[:len(backoffID{})])
}

// backoffs remember the failures of each key at each destination. They outlive the
// entries in memory, so that no write, deletion or invalidation makes a key that is
// refused be sent again. The zero value is ready to use.
type backoffs struct {
	memories[tokensource.Backoff, *tokensource.Backoff]
}

// rateLimits remember which destination has asked not to be called for a time. The zero
// value is ready to use.
type rateLimits struct {
	memories[tokensource.RateLimit, *tokensource.RateLimit]
}

// rateLimitID is a host together with the CA that it is trusted by, whichever path of it
// and whichever key a call is for. Who answers at the host for a CA of somebody's own
// keeps nobody else from it.
func rateLimitID(url, caCert string) backoffID {
	return backoffIDOf("rate limit", strings.ToLower(originOf(url)), caCert)
}

// memory is what is remembered of an id. Until is up to when it counts, zero if there is
// nothing to remember.
type memory[T any] interface {
	*T
	Until() time.Time
}

// memories are shared by their holders by ids, and last for a time when nobody holds
// them. The zero value is ready to use.
type memories[T any, M memory[T]] struct {
	mu   sync.Mutex
	held map[backoffID]*sharedMemory[T, M]
	// idle are those that nobody holds and that remember something.
	idle map[backoffID]*sharedMemory[T, M]
}

type sharedMemory[T any, M memory[T]] struct {
	memory  T
	of      *memories[T, M]
	id      backoffID
	holders int
}

// acquire returns the memory of an id and the function that gives it back, which is
// called once.
func (b *memories[T, M]) acquire(id backoffID) (memory M, release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropExpired()
	found, ok := b.held[id]
	if !ok {
		found = b.idle[id]
		delete(b.idle, id)
		if found == nil {
			found = &sharedMemory[T, M]{of: b, id: id}
		}
		if b.held == nil {
			b.held = make(map[backoffID]*sharedMemory[T, M])
		}
		b.held[id] = found
	}
	found.holders++
	return &found.memory, found.release
}

func (s *sharedMemory[T, M]) until() time.Time { return M(&s.memory).Until() }

func (s *sharedMemory[T, M]) release() {
	b := s.of
	b.mu.Lock()
	defer b.mu.Unlock()
	s.holders--
	if s.holders > 0 {
		return
	}
	delete(b.held, s.id)
	if s.until().IsZero() {
		return
	}
	if b.idle == nil {
		b.idle = make(map[backoffID]*sharedMemory[T, M])
	}
	b.idle[s.id] = s
	b.dropExpired()
}

// dropExpired drops what is idle and no longer counts, and one more, which ended
// first, if there are too many. The caller holds the lock.
func (b *memories[T, M]) dropExpired() {
	var first backoffID
	var earliest time.Time
	for id, idle := range b.idle {
		until := idle.until()
		if time.Since(until) >= failureMemory {
			delete(b.idle, id)
			continue
		}
		if earliest.IsZero() || until.Before(earliest) {
			first, earliest = id, until
		}
	}
	if len(b.idle) > maxIdleBackoffs {
		delete(b.idle, first)
	}
}
