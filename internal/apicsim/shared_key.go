// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"sync"
)

// SharedKey is an Options.Key for all simulations of a process that need not tell their
// tokens apart, such as those of tests. The first call makes it.
func SharedKey() (*ecdsa.PrivateKey, error) { return sharedKey() }

var sharedKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
