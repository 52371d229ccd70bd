// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"io"
	"regexp"
	"sync"
)

// keptFailures is how many different failures are told in words.
const keptFailures = 20

// failures counts what went wrong, and by its text. The zero value is empty.
type failures struct {
	mu     sync.Mutex
	total  int
	counts map[string]int
	order  []string
}

func (f *failures) add(what string, err error) {
	text := scrub(what + ": " + err.Error())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total++
	if f.counts == nil {
		f.counts = make(map[string]int)
	}
	if _, known := f.counts[text]; !known {
		if len(f.order) == keptFailures {
			return
		}
		f.order = append(f.order, text)
	}
	f.counts[text]++
}

func (f *failures) write(out io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, text := range f.order {
		fmt.Fprintf(out, "FAILED %d times: %s\n", f.counts[text], text)
	}
}

// scrub replaces what may be a key or a token, Vault's or a service's: each is a long
// run of characters that names and hosts do not have.
func scrub(text string) string {
	secret := regexp.MustCompile(`hvs\.[A-Za-z0-9_-]+|eyJ[A-Za-z0-9_.-]+|[A-Za-z0-9_-]{26,}`)
	return secret.ReplaceAllString(text, "[scrubbed]")
}
