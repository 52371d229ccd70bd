// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"sync"
	"testing"
)

func TestChangesThatBeginDuringAnUnloadAreCancelledAndDoNoHarm(t *testing.T) {
	for range 100 {
		var changes keyChanges
		present, _ := changes.begin("present", "rotated")
		var all sync.WaitGroup
		all.Go(changes.close)
		all.Go(func() { changes.end("present", present) })
		for range 10 {
			late, begun := changes.begin("late", "rotated")
			if !begun {
				t.Fatal("the change before has not ended")
			}
			changes.end("late", late)
		}
		all.Wait()
		late, _ := changes.begin("late", "rotated")
		if late.ctx.Err() == nil {
			t.Fatal("a change began after the unload")
		}
	}
}
