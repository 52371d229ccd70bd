// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package keyissuer leads an API key's life where it is made: it reads a key's
// details, creates another one, finds those that nobody was told of, disables and
// deletes. It is internal/rotation's Issuer and Session, for IBM Cloud IAM and for API
// Connect's own platform service; it decides nothing about a key, and knows nothing of
// Vault.
package keyissuer

import (
	"errors"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// ErrDisabled says that the issuer knows a key and does not accept it until it is
// enabled again.
var ErrDisabled = errors.New("the API key is disabled")

// keyError is a failed call that tells what state a key is in: it is both the
// *upstream.Error and the state, which is rotation.ErrNoSuchKey or ErrDisabled.
type keyError struct {
	failed *upstream.Error
	state  error
}

func (e *keyError) Error() string   { return e.failed.Error() }
func (e *keyError) Unwrap() []error { return []error{e.failed, e.state} }
