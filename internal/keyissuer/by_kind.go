// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"context"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// ByKind is the issuer that a binding's kind names.
type ByKind struct{ IAM, Platform rotation.Issuer }

var _ rotation.Issuer = ByKind{}

// Login opens a session with the binding's issuer. A kind of issuer that there is none
// of is a *upstream.Error: a newer version may have stored it.
func (b ByKind) Login(ctx context.Context, at rotation.Binding, value rotation.Secret) (rotation.Session, error) {
	switch at.Kind {
	case "":
		return b.IAM.Login(ctx, at, value)
	case rotation.KindPlatform:
		return b.Platform.Login(ctx, at, value)
	default:
		return nil, &upstream.Error{
			Service: "API key service", Host: "the stored address",
			Reason: "was not asked: its kind is unknown to this version", Advice: "run the version of the plugin that made the API key, or a newer one",
		}
	}
}
