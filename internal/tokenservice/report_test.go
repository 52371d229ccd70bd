// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

const reportPath = "../../docs/hostile-services.md"

const reportHead = `# Hostile and broken services

What a client of Vault sees when a token service misbehaves: the token, or the status that Vault answers and the error. An
error begins with ` + "`the <service> token service at <host>`" + `; the table has what follows, with … for times and request ids. A
dash means that the fault cannot happen to that service. Of what a service sends, nothing gets into an error but its status
and, where they look like one and hold no secret, its code and request id: one that echoes the key gives nothing away.
Of two members of one name the last one counts, as is usual for JSON: it is the one that is judged and the one handed out.

The table is what the tests saw: ` + "`go test ./internal/tokenservice`" + ` fails if it differs, and with ` + "`WRITE_REPORT=1`" + ` before it
writes the table anew. Each exchange was a single attempt (` + "`max_retries=0`" + `) with a timeout of a second.

`

// report is what a client saw of each service, by what the service did.
type report struct {
	cells map[string]map[tokenservice.Kind]string
}

func newReport() report { return report{make(map[string]map[tokenservice.Kind]string)} }

func (r report) note(what string, service tokenservice.Kind, saw string) {
	if r.cells[what] == nil {
		r.cells[what] = make(map[tokenservice.Kind]string)
	}
	r.cells[what][service] = saw
}

// hold fails if the report in the documentation is not this one.
func (r report) hold(t *testing.T) {
	t.Helper()
	if t.Failed() || !r.complete() {
		t.Log("the report is not looked at, because it is of a part or has failures")
		return
	}
	table := r.table()
	if os.Getenv("WRITE_REPORT") != "" {
		check(t, os.WriteFile(reportPath, []byte(table), 0o644))
		return
	}
	stored, err := os.ReadFile(reportPath)
	check(t, err)
	if string(stored) == table {
		return
	}
	documented := strings.Split(string(stored), "\n")
	for i, line := range strings.Split(table, "\n") {
		if i >= len(documented) || line != documented[i] {
			t.Fatalf("%s, line %d, does not say what was seen; look at the difference after WRITE_REPORT=1 go test ./internal/tokenservice:\n%s", reportPath, i+1, line)
		}
	}
	t.Fatalf("%s says more than was seen", reportPath)
}

// complete says whether every case was run, and none left out by -run.
func (r report) complete() bool {
	for _, h := range hostilities() {
		for _, service := range tokenservice.Kinds() {
			if h.isFor(service) && r.cells[h.what][service] == "" {
				return false
			}
		}
	}
	return true
}

func (r report) table() string {
	var b strings.Builder
	b.WriteString(reportHead)
	b.WriteString("| a service that … |")
	for _, service := range tokenservice.Kinds() {
		fmt.Fprintf(&b, " `%s` |", service)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(tokenservice.Kinds())) + "\n")
	for _, h := range hostilities() {
		fmt.Fprintf(&b, "| %s |", h.what)
		for _, service := range tokenservice.Kinds() {
			fmt.Fprintf(&b, " %s |", r.cell(h, service))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r report) cell(h hostility, service tokenservice.Kind) string {
	if !h.isFor(service) {
		return "–"
	}
	return normalise(r.cells[h.what][service])
}

// normalise takes out of an error what is different every time.
func normalise(saw string) string {
	for _, varies := range []*regexp.Regexp{
		regexp.MustCompile(`\(1 attempts?, ([^)]+)\)`),
		regexp.MustCompile(`expired (\S+) ago`),
		regexp.MustCompile(`finds the request as (\S+)`),
	} {
		if found := varies.FindStringSubmatchIndex(saw); found != nil {
			saw = saw[:found[2]] + "…" + saw[found[3]:]
		}
	}
	return strings.ReplaceAll(saw, "|", `\|`)
}
