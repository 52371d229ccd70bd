// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"context"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/keyissuer"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// named is an issuer whose sessions tell its name.
type named string

type namedSession struct {
	rotation.Session
	of string
}

func (n named) Login(_ context.Context, at rotation.Binding, value rotation.Secret) (rotation.Session, error) {
	return namedSession{of: string(n) + " at " + at.Issuer + " with " + string(value)}, nil
}

func TestByKind_theIssuerThatTheBindingNames(t *testing.T) {
	issuers := keyissuer.ByKind{IAM: named("iam"), Platform: named("platform")}
	for kind, want := range map[string]string{"": "iam at a with v", rotation.KindPlatform: "platform at a with v"} {
		session, err := issuers.Login(t.Context(), rotation.Binding{Kind: kind, Issuer: "a"}, "v")
		if err != nil || session.(namedSession).of != want {
			t.Errorf("%q: %v, error %v", kind, session, err)
		}
	}
	session, err := issuers.Login(t.Context(), rotation.Binding{Kind: "vault", Issuer: "a"}, testKey)
	if requireNotSent(t, "version", err); session != nil {
		t.Error("there is a session")
	}
}
