// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"maps"
	"testing"
)

func TestSumTraces(t *testing.T) {
	const traces = `File: vault-plugin-secrets-apic
Type: cpu
Time: 2026-11-26 23:31:55 UTC
Duration: 5.10s, Total samples = 680000us (13.34%)
-----------+-------------------------------------------------------
   10000us   runtime.mallocgc
             encoding/json.Marshal
             github.com/hashicorp/vault/sdk/plugin/pb.LogicalResponseToProtoResponse
             google.golang.org/grpc.(*Server).processUnaryRPC
-----------+-------------------------------------------------------
             labelled:"yes"
   20000us   github.com/apic-vault/vault-plugin-secrets-apic.(*backend).tokenRead
             github.com/hashicorp/vault/sdk/framework.(*Backend).HandleRequest
-----------+-------------------------------------------------------
   30000us   crypto/internal/fips140/aes/gcm.gcmAesEnc
             crypto/tls.(*Conn).Write
             google.golang.org/grpc/internal/transport.(*bufWriter).flushKeepBuffer
-----------+-------------------------------------------------------
   40000us   runtime.futex
             runtime.schedule
             runtime.mcall
-----------+-------------------------------------------------------
   50000us   runtime.scanobject
             runtime.gcBgMarkWorker
-----------+-------------------------------------------------------
   60000us   github.com/hashicorp/vault/vault.(*Core).HandleRequest
             net/http.(*conn).serve
-----------+-------------------------------------------------------
   70000us   internal/runtime/syscall.Syscall6
             os.(*File).Write
-----------+-------------------------------------------------------
   80000us   bufio.(*Reader).Peek
             net/http.(*conn).serve
`
	got, err := sumTraces([]byte(traces), "us")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{
		"Vault's SDK": 10000, "engine": 20000, "gRPC and TLS": 30000, partScheduler: 40000,
		"garbage collection": 50000, "Vault": 60000, partOther: 70000, "HTTP server": 80000,
	}
	if !maps.Equal(got, want) {
		t.Errorf("the parts are %v", got)
	}
}
