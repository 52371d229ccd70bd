// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestBinding_anotherCA has left behind, in a record, what somebody made up who had a CA of
// their own in the config for a while and answers at the issuer's address: bindings of
// that address to the identity of other people's keys. None of these keys is sent there.
func TestBinding_anotherCA(t *testing.T) {
	for name, leave := range map[string]func(b *bench, rec *Record, made Binding, victim Details){
		"a key whose value is not known": func(_ *bench, rec *Record, made Binding, victim Details) {
			rec.Retired = append(rec.Retired, Retired{Key: Key{ID: victim.ID, Name: victim.Name, Binding: made, Managed: true}})
		},
		"a key that is disabled": func(_ *bench, rec *Record, made Binding, victim Details) {
			rec.Retired = append(rec.Retired, Retired{Key: Key{Value: "evil-1", ID: victim.ID, Name: victim.Name, Binding: made, Managed: true}, Disabled: true})
		},
		"a creation": func(_ *bench, rec *Record, made Binding, _ Details) {
			rec.Intent = &Intent{Token: "token", Binding: made}
		},
		"a key beside one that the owner's may delete": func(b *bench, rec *Record, made Binding, victim Details) {
			rec.Current = b.keyOf(b.issuers["iam-1"].keys[0])
			rec.Retired = append(rec.Retired, Retired{Key: Key{ID: victim.ID, Name: victim.Name, Binding: made, Managed: true}})
		},
		"a key at an address where the owner's was seen": func(b *bench, rec *Record, made Binding, victim Details) {
			rec.Current = b.keyOf(b.issuers["iam-1"].keys[0])
			rec.Current.Elsewhere = []Binding{{Issuer: "iam-1-private", AccountID: made.AccountID, Identity: made.Identity}}
			made.Issuer = "iam-1-private"
			rec.Retired = append(rec.Retired, Retired{Key: Key{ID: victim.ID, Name: victim.Name, Binding: made, Managed: true}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.has(false, 0) // The owner's present key, of which nothing was asked yet.
				iam := b.issuers["iam-1"]
				victim := iam.add("somebody's", "account", "id-1", false)
				replaced := iam.add("vault-apic-replaced", "account", "id-1", true)
				rec := b.record()
				rec.Retired = []Retired{{Key: *b.keyOf(replaced), Grace: time.Hour}}
				leave(b, &rec, Binding{Issuer: "iam-1", CACert: evilCA, AccountID: "account", Identity: "id-1"}, victim.details)
				b.stores(Ref{Config: "a"}, rec, 0)
				b.boot()
				b.pass(48 * time.Hour)
				b.end()
				if b.failure != "" {
					t.Error(b.failure)
				}
				if !victim.deleted.IsZero() {
					t.Error("somebody else's key was deleted")
				}
				if replaced.deleted.IsZero() {
					t.Error("the key that was replaced was not deleted")
				}
			})
		})
	}
}
