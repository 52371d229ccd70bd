// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import "sync"

const (
	// maxInternedBytes bounds the memory of strings that no config has any more, and internedBytes
	// is what is counted of it for each beside its own length.
	maxInternedBytes = 1 << 20
	internedBytes    = 64
)

// interned are strings that many configs of a mount have in common: the URLs of a service, and
// the CA bundle that it is trusted by. Of these, each config that is read from storage would have
// copies of its own. None is a secret. The zero value is ready to use.
type interned struct {
	mu    sync.Mutex
	known map[string]string
	bytes int
}

// intern replaces what a config that was just read from storage has in common with others.
func (i *interned) intern(c *config) {
	i.mu.Lock()
	defer i.mu.Unlock()
	key := &c.Keys.Current.Binding
	for _, s := range []*string{
		&c.TokenURL, &c.APIURL, &c.IAMURL, &c.CACert,
		&key.Issuer, &key.CACert, &key.AccountID,
	} {
		*s = i.of(*s)
	}
}

// of returns s as it is in memory already, if it is. The caller holds the lock.
func (i *interned) of(s string) string {
	if found, ok := i.known[s]; ok {
		return found
	}
	size := len(s) + internedBytes
	if i.known == nil || i.bytes+size > maxInternedBytes {
		i.known, i.bytes = make(map[string]string), 0 // What is in use goes on to be shared.
	}
	i.known[s] = s
	i.bytes += size
	return s
}
