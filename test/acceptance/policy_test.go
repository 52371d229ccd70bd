// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"testing"

	"github.com/hashicorp/vault/api"
)

func TestPolicy_onOneTokenPathGrantsNothingElse(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	s.writeConfig("eu-gb", nil)
	app := s.as(`path "apic/token/us-south" { capabilities = ["read"] }`)

	secret, err := app.Logical().Read("apic/token/us-south")
	s.check(err)
	if got := s.callMe(secret.Data["token"].(string)); got != http.StatusOK {
		t.Errorf("the API manager answered %d", got)
	}
	for name, attempt := range map[string]func() (*api.Secret, error){
		"another region's token": func() (*api.Secret, error) { return app.Logical().Read("apic/token/eu-gb") },
		"a token of its own":     func() (*api.Secret, error) { return app.Logical().Write("apic/token/us-south", nil) },
		"the config":             func() (*api.Secret, error) { return app.Logical().Read("apic/config/us-south") },
		"the list of configs":    func() (*api.Secret, error) { return app.Logical().List("apic/config") },
		"the config's deletion":  func() (*api.Secret, error) { return app.Logical().Delete("apic/config/us-south") },
		"a new config":           func() (*api.Secret, error) { return app.Logical().Write("apic/config/new", s.configData(nil)) },
		"a change of the config": func() (*api.Secret, error) { return app.Logical().Write("apic/config/us-south", s.configData(nil)) },
	} {
		if _, err := attempt(); status(err) != http.StatusForbidden {
			t.Errorf("%s: status is %d", name, status(err))
		}
	}
}

// A policy that grants update alone issues dedicated tokens, and does not read the
// shared one.
func TestPolicy_updateReadsNoSharedToken(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	app := s.as(`path "apic/token/us-south" { capabilities = ["update"] }`)
	if _, err := app.Logical().Write("apic/token/us-south", nil); err != nil {
		t.Error(err)
	}
	if _, err := app.Logical().Read("apic/token/us-south"); status(err) != http.StatusForbidden {
		t.Errorf("status is %d", status(err))
	}
}

func TestPolicy_createOverwritesNoConfig(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	creator := s.as(`path "apic/config/*" { capabilities = ["create"] }`)
	if _, err := creator.Logical().Write("apic/config/us-south", s.configData(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := creator.Logical().Write("apic/config/us-south", s.configData(nil)); status(err) != http.StatusForbidden {
		t.Errorf("status is %d", status(err))
	}
}
