// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func entryOf(name string) *entry { return &entry{watch: &exchangeWatch{name: name}} }

// TestEntries_areAMap does the same at random to a map.
func TestEntries_areAMap(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		var e entries
		want := map[string]*entry{}
		for range 300 {
			name := fmt.Sprint("config-", random.IntN(20))
			switch random.IntN(5) {
			case 0, 1:
				next := entryOf(name)
				if before := e.put(next); before != want[name] {
					t.Fatalf("seed %d: %v was in the place of %s", seed, before, name)
				}
				want[name] = next
			case 2:
				if removed := e.remove(name); removed != want[name] {
					t.Fatalf("seed %d: %v was removed as %s", seed, removed, name)
				}
				delete(want, name)
			case 3:
				e.removeIf(name, want[name])
				delete(want, name)
			case 4:
				e.removeIf(name, entryOf(name)) // That is another one.
			}
			requireSame(t, &e, want)
		}
	}
}

func requireSame(t *testing.T, e *entries, want map[string]*entry) {
	t.Helper()
	if got := slices.Sorted(slices.Values(e.names())); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("there are %v", got)
	}
	for i := range 20 {
		name := fmt.Sprint("config-", i)
		if got := e.get(name); got != want[name] {
			t.Fatalf("%s is %v", name, got)
		}
	}
}

// TestEntries_sameHash: of two such names, nobody gets the other's entry.
func TestEntries_sameHash(t *testing.T) {
	var e entries
	held := entryOf("held")
	e.put(held)
	e.places[e.hash("other")] = e.places[e.hash("held")]
	e.removeIf("other", held)
	if e.get("other") != nil || e.remove("other") != nil || e.get("held") != held {
		t.Fatal("one has the other's entry")
	}
	next := entryOf("other")
	if e.put(next) != held || e.get("other") != next || e.get("held") != nil {
		t.Fatal("the second does not displace the first")
	}
}
