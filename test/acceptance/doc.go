// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package acceptance drives the built plugin on a real Vault server: through
// Vault's own API client, its CLI and its Agent.
package acceptance
