// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// TestDoubts_end is how long a write that failed is remembered.
func TestDoubts_end(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d doubts
		a, b := rotation.Ref{Config: "a"}, rotation.Ref{Config: "a", Tombstone: "uid"}
		if !d.until(a).IsZero() || d.isDeletion(a) {
			t.Error("there is a doubt at first")
		}
		began := time.Now()
		if until := d.add(a, true); !until.Equal(began.Add(doubtTime)) || !d.until(a).Equal(until) {
			t.Error("the doubt has another end")
		}
		if !d.isDeletion(a) || !d.until(b).IsZero() {
			t.Error("it is not the deletion of the one that is in doubt")
		}
		time.Sleep(doubtTime / 2)
		d.add(a, false)
		if !d.isDeletion(a) {
			t.Error("a put clears the deletion before it")
		}
		time.Sleep(doubtTime)
		if !d.until(a).IsZero() || d.isDeletion(a) {
			t.Error("the doubt does not end")
		}
		d.add(b, false)
		if len(d.byRef) != 1 || d.isDeletion(b) {
			t.Errorf("%d doubts are remembered", len(d.byRef))
		}
	})
}
