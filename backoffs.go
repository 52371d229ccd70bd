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

// digest is the id that something is remembered by, such as a key together with where it is
// sent: the first half of a SHA-256 digest.
type digest [sha256.Size / 2]byte

// newBackoffID leaves out what a config's writer may change without the key, such as
// the client credentials: with another id comes another attempt.
func newBackoffID(c *config) digest {
	return digestOf(string(c.TokenService), c.tokenURL(), c.CACert, c.APIKey)
}

func digestOf(parts ...string) digest {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return digest(sum.Sum(nil)[:len(digest{})])
}

// backoffs remember the failures of each key at each destination. They outlive the
// entries in memory, so that no write, deletion or invalidation makes a key that is
// refused be sent again. The zero value is ready to use.
type backoffs struct {
	registry[tokensource.Backoff, *tokensource.Backoff]
}

// rateLimits remember which destination has asked not to be called for a time. The zero
// value is ready to use.
type rateLimits struct {
	registry[tokensource.RateLimit, *tokensource.RateLimit]
}

// rateLimitID is a host together with the CA that it is trusted by, whichever path of it
// and whichever key a call is for. Who answers at the host for a CA of somebody's own
// keeps nobody else from it.
func rateLimitID(url, caCert string) digest {
	return digestOf("rate limit", strings.ToLower(originOf(url)), caCert)
}

// remembering is what a registry has by an id. Until is up to when it counts, zero if there is
// nothing to remember.
type remembering[T any] interface {
	*T
	Until() time.Time
}

// registry has, by ids, what holders of the same id share, and keeps it for a time when
// nobody holds it. The zero value is ready to use.
type registry[T any, M remembering[T]] struct {
	mu   sync.Mutex
	held map[digest]registered[T]
	// idle are those that nobody holds and that remember something.
	idle map[digest]*T
}

// registered is what has holders. Its value is nil until one of them asks for it: of a hundred
// thousand, most never do.
type registered[T any] struct {
	value   *T
	holders int
}

// acquire is hold and get. The function that it returns is release, and is called once.
func (r *registry[T, M]) acquire(id digest) (value M, release func()) {
	r.hold(id)
	return r.get(id), func() { r.release(id) }
}

// hold keeps what is remembered by an id, now or later, until release is called as often.
func (r *registry[T, M]) hold(id digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropExpired()
	if r.held == nil {
		r.held = make(map[digest]registered[T])
	}
	found, ok := r.held[id]
	if !ok {
		found.value = r.idle[id]
		delete(r.idle, id)
	}
	found.holders++
	r.held[id] = found
}

// get returns what all holders of an id share. The caller is one of them.
func (r *registry[T, M]) get(id digest) M {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.held[id]
	if found.value == nil {
		found.value = new(T)
		r.held[id] = found
	}
	return found.value
}

// release ends a hold. It is called once for each.
func (r *registry[T, M]) release(id digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.held[id]
	found.holders--
	if found.holders > 0 {
		r.held[id] = found
		return
	}
	delete(r.held, id)
	if found.value == nil || M(found.value).Until().IsZero() {
		return
	}
	if r.idle == nil {
		r.idle = make(map[digest]*T)
	}
	r.idle[id] = found.value
	r.dropExpired()
}

// dropExpired drops what is idle and no longer counts, and one more, which ended
// first, if there are too many. The caller holds the lock.
func (r *registry[T, M]) dropExpired() {
	var first digest
	var earliest time.Time
	for id, idle := range r.idle {
		until := M(idle).Until()
		if time.Since(until) >= failureMemory {
			delete(r.idle, id)
			continue
		}
		if earliest.IsZero() || until.Before(earliest) {
			first, earliest = id, until
		}
	}
	if len(r.idle) > maxIdleBackoffs {
		delete(r.idle, first)
	}
}
