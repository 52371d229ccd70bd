// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import "testing"

func TestPartOf(t *testing.T) {
	for want, stack := range map[string][]string{
		"Vault's SDK":        {"runtime.mallocgc", "encoding/json.Marshal", "github.com/hashicorp/vault/sdk/plugin/pb.LogicalResponseToProtoResponse", "google.golang.org/grpc.(*Server).processUnaryRPC"},
		"engine":             {"github.com/apic-vault/vault-plugin-secrets-apic.(*backend).tokenRead", "github.com/hashicorp/vault/sdk/framework.(*Backend).HandleRequest"},
		"gRPC and TLS":       {"crypto/internal/fips140/aes/gcm.gcmAesEnc", "crypto/tls.(*Conn).Write", "google.golang.org/grpc/internal/transport.(*bufWriter).flushKeepBuffer"},
		partScheduler:        {"runtime.futex", "runtime.schedule", "runtime.mcall"},
		"garbage collection": {"runtime.scanobject", "runtime.gcBgMarkWorker"},
		"Vault":              {"github.com/hashicorp/vault/vault.(*Core).HandleRequest", "net/http.(*conn).serve"},
		partOther:            {"internal/runtime/syscall.Syscall6", "os.(*File).Write"},
		"HTTP server":        {"bufio.(*Reader).Peek", "net/http.(*conn).serve"},
	} {
		if got := partOf(stack); got != want {
			t.Errorf("%q counts to %s instead of %s", stack, got, want)
		}
	}
}
