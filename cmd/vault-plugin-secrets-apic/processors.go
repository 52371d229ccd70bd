// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"runtime"
)

// leaveProcessors has Go run on half of the processors that it would take. Vault takes several times
// the plugin's CPU time for a read, and as much as the plugin for an exchange, so that requests
// alone cannot fill more than half. On fewer processors, Go wakes fewer threads to look for work,
// and sends more responses at a time. It follows a container's limit no more once it was told.
// What an operator has set, by GOMAXPROCS in the plugin's environment, is kept.
func leaveProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0)/2, 1))
	}
}
