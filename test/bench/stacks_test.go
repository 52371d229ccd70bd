// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"maps"
	"testing"

	pprof "github.com/google/pprof/profile"
)

func TestByPart(t *testing.T) {
	written := &pprof.Profile{SampleType: []*pprof.ValueType{{Type: "samples"}, {Type: "cpu"}}, PeriodType: &pprof.ValueType{}}
	for i, stack := range [][]string{
		{"runtime.mallocgc", "encoding/json.Marshal", "github.com/hashicorp/vault/sdk/plugin/pb.LogicalResponseToProtoResponse", "google.golang.org/grpc.(*Server).processUnaryRPC"},
		{"github.com/apic-vault/vault-plugin-secrets-apic.(*backend).tokenRead", "github.com/hashicorp/vault/sdk/framework.(*Backend).HandleRequest"},
		{"crypto/internal/fips140/aes/gcm.gcmAesEnc", "crypto/tls.(*Conn).Write", "google.golang.org/grpc/internal/transport.(*bufWriter).flushKeepBuffer"},
		{"runtime.futex", "runtime.schedule", "runtime.mcall"},
		{"runtime.scanobject", "runtime.gcBgMarkWorker"},
		{"github.com/hashicorp/vault/vault.(*Core).HandleRequest", "net/http.(*conn).serve"},
		{"internal/runtime/syscall.Syscall6", "os.(*File).Write"},
		{"bufio.(*Reader).Peek", "net/http.(*conn).serve"},
	} {
		taken := &pprof.Sample{Value: []int64{1, int64(10_000 * (i + 1))}}
		for _, name := range stack {
			function := &pprof.Function{ID: uint64(len(written.Function) + 1), Name: name}
			location := &pprof.Location{ID: function.ID, Line: []pprof.Line{{Function: function}}}
			written.Function, written.Location = append(written.Function, function), append(written.Location, location)
			taken.Location = append(taken.Location, location)
		}
		written.Sample = append(written.Sample, taken)
	}
	var content bytes.Buffer
	check(written.Write(&content))
	got := byPart(content.Bytes(), "cpu", 1000)
	want := map[string]float64{
		"Vault's SDK": 10, "engine": 20, "gRPC and TLS": 30, partScheduler: 40, "garbage collection": 50, "Vault": 60, partOther: 70, "HTTP server": 80, partAll: 360,
	}
	if !maps.Equal(got, want) {
		t.Errorf("the parts are %v", got)
	}
}
