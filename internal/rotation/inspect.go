// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"strings"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// Strangers are the ids of those keys of an issuer's list that were made for the record
// and are not in it, as after a snapshot was restored. A key that this process has made
// gone lately is none: lists lag. Nothing is remembered, and nothing is decided by it.
func (e *Engine) Strangers(ref Ref, record Record, listed []Details) (ids []string) {
	e.mu.Lock()
	m := e.memories[ref]
	e.mu.Unlock()
	for _, d := range listed {
		isKnown := record.knows(d.ID) || record.hasLost(d.Name) || record.mayBeMaking(d.Name)
		if strings.HasPrefix(d.Name, record.prefix()) && !isKnown && (m == nil || !m.isGoneKey(d.ID)) {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

// mayBeMaking says whether a name is that of the creation under way.
func (r Record) mayBeMaking(name string) bool {
	return r.Intent != nil && strings.HasPrefix(name, r.namePrefixOf(*r.Intent))
}

// isGoneKey is isGone for a key of whichever address.
func (m *memory) isGoneKey(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for label := range m.gone {
		if strings.HasPrefix(label, id+" ") {
			return true
		}
	}
	return false
}

// IsDiscreet says whether what an issuer tells of a key, or an error, gives none of the
// record's keys and tokens away, and none of the plan's secrets. Ids and names may be told
// if so.
func (r Record) IsDiscreet(plan Plan, texts ...string) bool {
	return !upstream.HoldsAny(strings.Join(texts, " "), append(r.values(), plan.Secrets...)...)
}
