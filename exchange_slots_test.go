// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import "testing"

func TestExchangeSlots_areThoseOfTheNameWhileHeld(t *testing.T) {
	var slots exchangeSlots
	first, releaseFirst := slots.acquire("a")
	second, releaseSecond := slots.acquire("a")
	other, releaseOther := slots.acquire("b")
	if first != second || first == other {
		t.Error("the slots are not the name's")
	}
	releaseFirst()
	third, releaseThird := slots.acquire("a")
	if third != first {
		t.Error("slots that somebody holds were replaced")
	}
	releaseSecond()
	releaseThird()
	releaseOther()
	if len(slots.byName) != 0 {
		t.Errorf("%d names are left", len(slots.byName))
	}
}
