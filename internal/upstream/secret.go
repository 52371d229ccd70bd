// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Secret is a string that no format verb prints, except in a field that is not
// exported: package fmt does not ask there.
type Secret string

const redacted = "[redacted]"

// Format writes a placeholder, whatever the verb.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

var handle = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Handle returns a service's own name for a request, if it is fit to print: if it
// looks like one and gives none of the secrets away. Otherwise it is empty.
func Handle(text string, secrets ...Secret) string {
	if !handle.MatchString(text) || HoldsAny(text, secrets...) {
		return ""
	}
	return text
}

// HoldsAny says whether a text of a service's gives one of the secrets away.
func HoldsAny(text string, secrets ...Secret) bool {
	return slices.ContainsFunc(secrets, func(s Secret) bool { return s != "" && strings.Contains(text, string(s)) })
}
