// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

//go:build !race

package rotation

const defaultLives = 20000
