// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"
)

// Secret is a string that no format verb prints, except in a field that is not
// exported: package fmt does not ask there.
type Secret string

const redacted = "[redacted]"

// Format writes a placeholder for any verb.
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

// tellingRun is how many characters of a secret in a row give it away. A shorter
// secret is sought whole.
const tellingRun = 8

// HoldsAny says whether a text of a service's gives one of the secrets away: as it
// is or in part, escaped as in URLs, or in hex or base64.
func HoldsAny(text string, secrets ...Secret) bool {
	return slices.ContainsFunc(secrets, func(s Secret) bool { return s != "" && gives(text, string(s)) })
}

// HoldsWhole says whether a text holds all of one of the secrets, in one of the forms that
// HoldsAny knows. It is for texts in which parts of a secret may stand by chance.
func HoldsWhole(text string, secrets ...Secret) bool {
	unescaped, lower, plain := unescape(text), strings.ToLower(text), plainAlphabet.Replace(text)
	return slices.ContainsFunc(secrets, func(secret Secret) bool {
		s := string(secret)
		return s != "" && (strings.Contains(text, s) || strings.Contains(unescaped, s) ||
			strings.Contains(lower, hex.EncodeToString([]byte(s))) ||
			slices.ContainsFunc(wholeGroups(s), func(groups string) bool { return groups != "" && strings.Contains(plain, groups) }))
	})
}

func gives(text, secret string) bool {
	return shareRun(text, secret, min(tellingRun, len(secret))) ||
		shareRun(unescape(text), secret, min(tellingRun, len(secret))) ||
		shareRun(strings.ToLower(text), hex.EncodeToString([]byte(secret)), hex.EncodedLen(tellingRun)) ||
		givesInBase64(text, secret)
}

// givesInBase64 seeks a run of the secret. Of any eight bytes, at least two groups are
// whole: tellingRun characters.
func givesInBase64(text, secret string) bool {
	plain := plainAlphabet.Replace(text)
	return slices.ContainsFunc(wholeGroups(secret), func(groups string) bool { return shareRun(plain, groups, tellingRun) })
}

// wholeGroups are what of the secret is seen within the base64 of a longer text, which
// depends on where in a group of three bytes it begins.
func wholeGroups(secret string) (seen []string) {
	for skipped := range min(3, len(secret)) {
		groups := secret[skipped:]
		groups = groups[:len(groups)/3*3]
		seen = append(seen, base64.StdEncoding.EncodeToString([]byte(groups)))
	}
	return seen
}

// plainAlphabet writes the base64 of URLs in a text as any other.
var plainAlphabet = strings.NewReplacer("-", "+", "_", "/")

// shareRun says whether two texts have n bytes in a row in common. It takes time in
// proportion to their lengths, for an answer may be long, and a bearer too.
func shareRun(a, b string, n int) bool {
	runs := make(map[string]struct{})
	for run := range runsWithin(a, b, n) {
		runs[run] = struct{}{}
	}
	for run := range runsWithin(b, a, n) {
		if _, found := runs[run]; found {
			return true
		}
	}
	return false
}

// runsWithin yields the runs of n bytes of a text, without those that have a byte which the
// other text lacks. Of most texts that share no run it yields nearly none.
func runsWithin(text, other string, n int) iter.Seq[string] {
	return func(yield func(string) bool) {
		var known [256]bool
		for i := range len(other) {
			known[other[i]] = true
		}
		length := 0
		for i := range len(text) {
			length++
			if !known[text[i]] {
				length = 0
			}
			if length >= n && !yield(text[i-n+1:i+1]) {
				return
			}
		}
	}
}

// unescape undoes a URL's escapes and leaves what is none. That a form writes a
// space as a plus does not matter: no key has one.
func unescape(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if octet, err := hex.DecodeString(text[i+1 : i+3]); err == nil {
				b.Write(octet)
				i += 2
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
