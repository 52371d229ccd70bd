// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"maps"
	"sync"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// doubtTime is how long a write that failed may still take effect: storage may have
// sent it on, to a leader that is elected next or over a network that is slow.
const doubtTime = 30 * time.Second

// doubts are the configs and tombstones of which it is not known what is stored. The zero
// value is ready to use.
type doubts struct {
	mu    sync.Mutex
	byRef map[rotation.Ref]doubt
}

type doubt struct {
	until time.Time
	// deletion says that what failed was a deletion.
	deletion bool
}

// add takes note of a write that failed, and returns until when it may take effect.
func (d *doubts) add(ref rotation.Ref, deletion bool) (until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(d.byRef, func(_ rotation.Ref, old doubt) bool { return !now.Before(old.until) })
	if d.byRef == nil {
		d.byRef = make(map[rotation.Ref]doubt)
	}
	until = now.Add(doubtTime)
	d.byRef[ref] = doubt{until: until, deletion: deletion || d.byRef[ref].deletion}
	return until
}

// until is when it will be certain again what is stored, zero if it is.
func (d *doubts) until(ref rotation.Ref) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if until := d.byRef[ref].until; time.Now().Before(until) {
		return until
	}
	return time.Time{}
}

// isDeletion says whether a deletion may still take effect.
func (d *doubts) isDeletion(ref rotation.Ref) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := d.byRef[ref]
	return found.deletion && time.Now().Before(found.until)
}
