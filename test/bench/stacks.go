// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// part is what a read goes through, as told by the functions of a stack.
type part struct {
	name string
	// packages are the beginnings of the functions' names, with their packages.
	packages []string
}

const (
	partScheduler = "Go's scheduler"
	partOther     = "other"
)

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
	}
}

func partNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return append(names, partScheduler, partOther)
}

// partOf is the part that a stack's time counts to.
func partOf(stack []string) string {
	onlyRuntime := true
	for _, function := range stack {
		for _, p := range parts() {
			for _, beginning := range p.packages {
				if strings.HasPrefix(function, beginning) {
					return p.name
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

// byPart adds up a profile by what its stacks are part of. index is one of the
// profile's kinds of sample, unit what to count it in.
func byPart(ctx context.Context, profile, index, unit string) (map[string]float64, error) {
	command := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", "-sample_index="+index, "-unit="+unit, profile)
	var problems bytes.Buffer
	command.Stderr = &problems
	traces, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof: %w\n%s", err, problems.Bytes())
	}
	return sumTraces(traces, unit)
}

// sumTraces reads what go tool pprof -traces prints: stacks between lines of dashes, the
// value before the first function, and labels above it.
func sumTraces(traces []byte, unit string) (map[string]float64, error) {
	value := regexp.MustCompile(`^\s*(-?[0-9.]+)` + unit + `\s+(\S.*)$`)
	totals := make(map[string]float64)
	var (
		stack  []string
		amount float64
	)
	end := func() {
		if len(stack) > 0 {
			totals[partOf(stack)] += amount
		}
		stack = nil
	}
	lines := bufio.NewScanner(bytes.NewReader(traces))
	for lines.Scan() {
		line := lines.Text()
		found := value.FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "-----"):
			end()
		case found != nil && len(stack) == 0:
			var err error
			if amount, err = strconv.ParseFloat(found[1], 64); err != nil {
				return nil, err
			}
			stack = []string{found[2]}
		case len(stack) > 0:
			stack = append(stack, strings.TrimSpace(line))
		}
	}
	end()
	return totals, lines.Err()
}
