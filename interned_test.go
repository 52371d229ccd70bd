// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"strings"
	"testing"
	"unsafe"
)

// TestInterned_configsShareStrings that were read from storage, however often.
func TestInterned_configsShareStrings(t *testing.T) {
	m := newMount(t)
	for _, name := range []string{"first", "second"} {
		m.writeConfig(name, map[string]any{"api_url": "https://manager.example.com/api", "iam_url": "https://iam.example.com"})
	}
	m.restart()
	m.readToken("first")
	m.readToken("second")
	first, second := m.backend.configs.inUse("first").config, m.backend.configs.inUse("second").config
	for what, each := range map[string][2]string{
		"token_url": {first.TokenURL, second.TokenURL},
		"api_url":   {first.APIURL, second.APIURL},
		"iam_url":   {first.IAMURL, second.IAMURL},
	} {
		if each[0] == "" || each[0] != each[1] || unsafe.StringData(each[0]) != unsafe.StringData(each[1]) {
			t.Errorf("%s: %q and %q are not the same piece of memory", what, each[0], each[1])
		}
	}
	if first.APIKey == "" || unsafe.StringData(first.APIKey) == unsafe.StringData(second.APIKey) {
		t.Error("the key is shared, or there is none")
	}
}

// TestInterned_isBounded by the bytes of all strings.
func TestInterned_isBounded(t *testing.T) {
	var i interned
	for n := range 100 {
		s := strings.Repeat(string(rune('0'+n)), maxInternedBytes/10)
		if got := i.of(s); got != s {
			t.Fatal("another string was returned")
		}
		held := 0
		for s := range i.known {
			held += len(s)
		}
		if held != i.bytes || held > maxInternedBytes {
			t.Fatalf("%d bytes are held, and %d counted, after %d strings", held, i.bytes, n+1)
		}
	}
}
