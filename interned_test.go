// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"strings"
	"testing"
	"unsafe"
)

// TestInterned_configsShareStrings that were read from storage.
func TestInterned_configsShareStrings(t *testing.T) {
	m := newMount(t)
	for _, name := range []string{"first", "second"} {
		m.writeConfig(name, map[string]any{"api_url": "https://manager.example.com/api"})
	}
	m.restart()
	m.readToken("first")
	m.readToken("second")
	first, second := m.backend.configs.inUse("first").config, m.backend.configs.inUse("second").config
	if first == second || !isSameMemory(first.APIURL, second.APIURL) {
		t.Errorf("%q and %q are not the same piece of memory", first.APIURL, second.APIURL)
	}
}

// TestInterned_allThatConfigsHaveInCommon and no secret.
func TestInterned_allThatConfigsHaveInCommon(t *testing.T) {
	decode := func() *config {
		c, err := decodeConfig("us-south", []byte(`{"token_url": "token URL", "api_url": "API URL", "iam_url": "IAM URL",
			"ca_cert": "CA", "client_secret": "canary secret", "keys": {"current": {"value": "canary key",
			"binding": {"issuer": "issuer", "ca_cert": "issuer's CA", "account_id": "account"}}}}`))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var i interned
	first, second := decode(), decode()
	i.intern(first)
	i.intern(second)
	for what, of := range map[string]func(*config) string{
		"token_url":             func(c *config) string { return c.TokenURL },
		"api_url":               func(c *config) string { return c.APIURL },
		"iam_url":               func(c *config) string { return c.IAMURL },
		"ca_cert":               func(c *config) string { return c.CACert },
		"the key's issuer":      func(c *config) string { return c.Keys.Current.Binding.Issuer },
		"the key's issuer's CA": func(c *config) string { return c.Keys.Current.Binding.CACert },
		"the key's account":     func(c *config) string { return c.Keys.Current.Binding.AccountID },
	} {
		if got := of(first); got != of(decode()) || !isSameMemory(got, of(second)) {
			t.Errorf("%s: %q and %q are not the same piece of memory", what, got, of(second))
		}
	}
	for s := range i.known {
		if s == first.APIKey || s == first.ClientSecret {
			t.Error("a secret is kept")
		}
	}
}

func isSameMemory(a, b string) bool {
	return a != "" && a == b && unsafe.StringData(a) == unsafe.StringData(b)
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
			held += len(s) + internedBytes
		}
		if held != i.bytes || held > maxInternedBytes {
			t.Fatalf("%d bytes are held, and %d counted, after %d strings", held, i.bytes, n+1)
		}
	}
}
