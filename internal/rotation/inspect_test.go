// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"slices"
	"testing"
)

func TestStrangers_areKeysOfTheRecordsNameThatItDoesNotKnow(t *testing.T) {
	record := New("c", "value")
	at := Binding{Issuer: "https://iam.example", Identity: "i"}
	record.Current.ID = "current"
	record.Intent = &Intent{Token: "making", Binding: at}
	record.Retired = []Retired{{Key: Key{ID: "retired"}}, {Key: Key{Name: record.prefix() + "lost"}}}
	e := NewEngine(Options{})
	defer e.Close()
	ref := Ref{Config: "c"}
	listed := []Details{
		{ID: "current", Name: record.prefix() + "a-c"}, {ID: "retired", Name: record.prefix() + "b-c"},
		{ID: "lost", Name: record.prefix() + "lost-c"}, {ID: "made", Name: record.prefix() + "making-c"},
		{ID: "another-config", Name: "vault-apic-0000000000000-a"}, {ID: "somebody", Name: "by hand"},
		{ID: "deleted", Name: record.prefix() + "d-c"}, {ID: "stranger", Name: record.prefix() + "e-c"},
	}
	if got := e.Strangers(ref, record, listed); !slices.Equal(got, []string{"deleted", "stranger"}) {
		t.Errorf("strangers are %q", got)
	}
	e.memory(ref).cleanedUp(Retired{Key: Key{ID: "deleted", Binding: at}})
	if got := e.Strangers(ref, record, listed); !slices.Equal(got, []string{"stranger"}) {
		t.Errorf("after its deletion strangers are %q", got)
	}
}

func TestIsDiscreet_holdsTextsAgainstAllSecrets(t *testing.T) {
	record := New("c", "a-value-of-a-key")
	record.Token = &Token{Value: "a-current-token"}
	plan := Plan{Secrets: []Secret{"a-client-secret"}}
	if !record.IsDiscreet(plan, "ApiKey-1", "name") {
		t.Error("an id is indiscreet")
	}
	for _, secret := range []string{"a-value-of-a-key", "a-current-token", "a-client-secret"} {
		if record.IsDiscreet(plan, "ApiKey-1", "named "+secret) {
			t.Errorf("%s may be told", secret)
		}
	}
}
