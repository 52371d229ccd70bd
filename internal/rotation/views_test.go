// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"slices"
	"testing"
)

// TestMove_allThatIsFoundAtAnAddress has an issuer be found elsewhere, with another CA.
func TestMove_allThatIsFoundAtAnAddress(t *testing.T) {
	elsewhere := ownerX
	elsewhere.Issuer = "y"
	current, candidate := managedKey("current", ownerX), managedKey("candidate", ownerX)
	seen := managedKey("seen", elsewhere)
	seen.Elsewhere = []Binding{ownerX}
	r := Record{
		Current: &current, Candidate: &candidate, Intent: &Intent{Token: "token", Binding: ownerX},
		Retired: []Retired{{Key: managedKey("retired", ownerX)}, {Key: seen}},
	}
	before := r.clone()
	moved := r.Move("x", "z", "ca")
	for name, b := range map[string]Binding{
		"current": moved.Current.Binding, "candidate": moved.Candidate.Binding, "intent": moved.Intent.Binding, "retired": moved.Retired[0].Binding,
	} {
		if b.Issuer != "z" || b.CACert != "ca" || b.Identity != ownerX.Identity {
			t.Errorf("%s is bound to %+v", name, b)
		}
	}
	if k := moved.Retired[1]; k.Binding != elsewhere || !slices.Equal(k.Elsewhere, []Binding{moved.Current.Binding}) {
		t.Errorf("a key of another address is bound to %+v, and seen at %v", k.Binding, k.Elsewhere)
	}
	if !r.Equal(before) || r.Retired[1].Elsewhere[0] != ownerX {
		t.Error("the record that was moved has changed itself")
	}
}
