// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"strings"

	pprof "github.com/google/pprof/profile"
)

const (
	partScheduler = "Go's scheduler" // a stack that has nothing but the runtime's functions
	partOther     = "other"
	partAll       = "**all**"
)

// part is what a read goes through, as told by the beginnings of the names of a stack's functions.
type part struct {
	Name     string
	packages []string
}

// parts are looked through in order, for each function of a stack from the leaf on. So
// what encoding/json does for the framework counts as the framework's.
func parts() []part {
	return []part{
		{"garbage collection", []string{"runtime.gcBgMarkWorker", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcAssistAlloc", "runtime.gcStart"}},
		{"engine", []string{"github.com/apic-vault/vault-plugin-secrets-apic", "main."}},
		{"Vault's SDK", []string{"github.com/hashicorp/vault/sdk/"}},
		{"gRPC and TLS", []string{"google.golang.org/", "golang.org/x/net/http2", "crypto/tls.", "github.com/hashicorp/go-plugin"}},
		{"Vault", []string{"github.com/hashicorp/"}},
		{"HTTP server", []string{"net/http."}},
		{partScheduler, nil},
		{partOther, nil},
		{partAll, nil},
	}
}

// partOf is the part that a stack counts to.
func partOf(stack []string) string {
	onlyRuntime := true
	for _, function := range stack {
		for _, p := range parts() {
			for _, beginning := range p.packages {
				if strings.HasPrefix(function, beginning) {
					return p.Name
				}
			}
		}
		onlyRuntime = onlyRuntime && (strings.HasPrefix(function, "runtime.") || strings.HasPrefix(function, "internal/runtime/"))
	}
	if onlyRuntime {
		return partScheduler
	}
	return partOther
}

// byPart adds up one of the values of a profile, in a unit, by what its stacks are part of.
func byPart(content []byte, value string, unit float64) map[string]float64 {
	parsed := must(pprof.ParseData(content))
	index := must(parsed.SampleIndexByName(value))
	totals := make(map[string]float64)
	for _, s := range parsed.Sample {
		var stack []string
		for _, location := range s.Location {
			for _, line := range location.Line {
				stack = append(stack, line.Function.Name)
			}
		}
		amount := float64(s.Value[index]) / unit
		totals[partOf(stack)] += amount
		totals[partAll] += amount
	}
	return totals
}
