// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"strings"
	"testing"
)

func TestWriteProfiles(t *testing.T) {
	var out strings.Builder
	writeProfiles(&out, []profileResult{
		{process: "plugin", readers: 1, cpu: map[string]float64{"engine": 3, "gRPC and TLS": 40}, bytes: map[string]float64{"engine": 1024}},
		{process: "Vault", readers: 32, cpu: map[string]float64{"Vault": 90}, bytes: map[string]float64{"Vault": 2048}},
	})
	_, got, _ := strings.Cut(out.String(), "| CPU")
	want := ` | plugin, 1 reader | Vault, 32 readers |
|---|--:|--:|
| engine | 3 µs | 0 µs |
| gRPC and TLS | 40 µs | 0 µs |
| Vault | 0 µs | 90 µs |
| **all** | 43 µs | 90 µs |

| allocated | plugin, 1 reader | Vault, 32 readers |
|---|--:|--:|
| engine | 1.0 KiB | 0.0 KiB |
| Vault | 0.0 KiB | 2.0 KiB |
| **all** | 1.0 KiB | 2.0 KiB |
`
	if got != want {
		t.Errorf("the tables are\n%s", got)
	}
}
