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

// reportPath is a golden file: WRITE_REPORT=1 writes it anew.
const reportPath = "testdata/upstream-errors.md"

const reportHead = `# Every upstream fault and its error

` + "`go test ./internal/tokenservice`" + ` fails if this table differs from what it sees; ` + "`WRITE_REPORT=1`" + ` before it writes the table anew. Each exchange is a
single attempt with a timeout of a second. A cell is the outcome for a client of Vault: a token, or the status and what follows
` + "`<service> token service at <host>:`" + ` in the error, with … for times and request ids. A dash means that the fault cannot happen
to that service. Of two members of one name the last one counts, as is usual for JSON.

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
	for _, h := range upstreamFaults() {
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
	for _, h := range upstreamFaults() {
		fmt.Fprintf(&b, "| %s |", h.what)
		for _, service := range tokenservice.Kinds() {
			fmt.Fprintf(&b, " %s |", r.cell(h, service))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r report) cell(h upstreamFault, service tokenservice.Kind) string {
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
