// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto/rand"
	"crypto/rsa"
	"sync"
)

// SharedRSAKey is an Options.RSAKey for all simulations of a process that need not tell
// their tokens apart, such as those of tests. It is made by the first call, for it takes
// longer than most tests.
func SharedRSAKey() (*rsa.PrivateKey, error) { return sharedRSAKey() }

var sharedRSAKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
