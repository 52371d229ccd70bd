// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var (
	ownerX = Binding{Issuer: "x", AccountID: "account", Identity: "id-x"}
	ownerY = Binding{Issuer: "x", AccountID: "account", Identity: "id-y"}
)

func managedKey(value string, of Binding) Key {
	return Key{Value: Secret(value), ID: "id of " + value, Name: "name", Binding: of, Managed: true}
}

func importedKey(value string, of Binding) Key {
	k := managedKey(value, of)
	k.Managed = false
	return k
}

// describe writes a record as its keys, in short.
func (r Record) describe() string {
	var s []string
	if r.Current != nil {
		s = append(s, string(r.Current.Value))
	}
	if r.Candidate != nil {
		s = append(s, "candidate "+string(r.Candidate.Value))
	}
	if r.Intent != nil {
		s = append(s, "intent")
	}
	for _, k := range r.Retired {
		kept := "retired"
		if k.Keep {
			kept = "kept"
		}
		s = append(s, kept+" "+string(k.Value)+" "+k.Grace.String())
	}
	return strings.Join(s, ", ")
}

func TestImport_whatBecomesOfTheKeys(t *testing.T) {
	managed, imported, candidate := managedKey("managed", ownerX), importedKey("imported", ownerX), managedKey("candidate", ownerX)
	retired := Retired{Key: managedKey("retired", ownerX), Grace: time.Hour}
	lost := Retired{Key: managedKey("", ownerX)}
	for name, c := range map[string]struct {
		record Record
		value  Secret
		want   string
	}{
		"the same key changes nothing":                      {Record{Current: &managed, Candidate: &candidate}, "managed", "managed, candidate candidate"},
		"an imported key is kept":                           {Record{Current: &imported}, "new", "new"},
		"a managed key lives on for the grace period":       {Record{Current: &managed}, "new", "new, retired managed 1m0s"},
		"a candidate is deleted at once":                    {Record{Current: &imported, Candidate: &candidate}, "new", "new, retired candidate 0s"},
		"an intent stays, and what can look for it":         {Record{Current: &imported, Intent: &Intent{Binding: ownerX}}, "new", "new, intent, kept imported 0s"},
		"a key of another identity is not kept":             {Record{Current: &imported, Intent: &Intent{Binding: ownerY}}, "new", "new, intent"},
		"what can delete a key of lost value is kept":       {Record{Current: &imported, Retired: []Retired{lost}}, "new", "new, retired  0s, kept imported 0s"},
		"a retired key is taken back":                       {Record{Current: &managed, Retired: []Retired{retired}}, "retired", "retired, retired managed 1m0s"},
		"a candidate is taken, should anybody know it":      {Record{Current: &imported, Candidate: &candidate}, "candidate", "candidate"},
		"what is kept goes when the key in use can do that": {Record{Current: &managed, Intent: &Intent{Binding: ownerY}, Retired: []Retired{{Key: importedKey("kept", ownerY), Keep: true}, {Key: importedKey("back", ownerY)}}}, "back", "back, intent, retired managed 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := json.Marshal(c.record)
			next, err := c.record.Import(c.value, time.Minute)
			if err != nil || next.describe() != c.want {
				t.Errorf("%s, error %v", next.describe(), err)
			}
			if after, _ := json.Marshal(c.record); string(after) != string(before) {
				t.Error("the record before is changed")
			}
		})
	}
}

func TestImport_aCondemnedKeyIsRefused(t *testing.T) {
	current := managedKey("current", ownerX)
	r := Record{Current: &current, Retired: []Retired{{Key: managedKey("retired", ownerX), Condemned: true}}}
	if _, err := r.Import("retired", 0); !errors.Is(err, ErrCondemned) {
		t.Errorf("the error is %v", err)
	}
}

func TestBury_whatIsLeft(t *testing.T) {
	managed, imported, candidate := managedKey("managed", ownerX), importedKey("imported", ownerX), managedKey("candidate", ownerX)
	for name, c := range map[string]struct {
		record Record
		want   string
	}{
		"an imported key is kept":                   {Record{Current: &imported}, ""},
		"a managed key is deleted at once":          {Record{Current: &managed}, "retired managed 0s"},
		"a candidate is deleted at once":            {Record{Current: &imported, Candidate: &candidate}, "retired candidate 0s"},
		"an intent stays, and what can look for it": {Record{Current: &imported, Intent: &Intent{Binding: ownerX}}, "intent, kept imported 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			tomb := c.record.Bury()
			if tomb.describe() != c.want || tomb.Empty() != (c.want == "") {
				t.Errorf("%s", tomb.describe())
			}
		})
	}
}

func TestRecord_isStoredWhole(t *testing.T) {
	current, candidate := importedKey("current", ownerX), managedKey("candidate", ownerX)
	current.Elsewhere = []Binding{{Issuer: "y"}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	r := Record{
		UID: "uid", Config: "a", Current: &current, Candidate: &candidate, Intent: &Intent{Token: "token", Binding: ownerX, Since: at}, Grace: new(time.Hour),
		Retired: []Retired{{Key: managedKey("retired", ownerY), Grace: time.Hour, DeleteAfter: at, Disabled: true, Condemned: true, Keep: true}},
	}
	stored, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var read Record
	if err := json.Unmarshal(stored, &read); err != nil || !read.Equal(r) {
		t.Errorf("read %s, error %v", stored, err)
	}
	if read.Current = nil; read.Equal(r) {
		t.Error("a record without its current key is equal")
	}
}

func TestRecord_isPrintedWithoutSecrets(t *testing.T) {
	r := New("a", "the-value")
	for _, verb := range []string{"%v", "%+v", "%s"} {
		if s := fmt.Sprintf(verb, *r.Current); strings.Contains(s, "the-value") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}
