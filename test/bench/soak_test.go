// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

func TestSoak_judge(t *testing.T) {
	for name, c := range map[string]struct {
		goroutines func(i int) int
		failed     bool
		want       string
	}{
		"flat":              {func(int) int { return 100 }, false, ""},
		"growing":           {func(i int) int { return 100 + i }, false, "soak: 1 of 5 measures grow, 0 requests failed"},
		"growing a little":  {func(i int) int { return 100 + i/4 }, false, ""},
		"falling":           {func(i int) int { return 200 - i }, false, ""},
		"while warming up":  {func(i int) int { return min(100, 5*i) }, false, ""},
		"waves that spread": {waves, false, ""},
		"of a small number": {func(i int) int { return 4 + i/20 }, false, ""},
		"a failing read":    {func(int) int { return 100 }, true, "soak: 0 of 5 measures grow, 1 requests failed"},
	} {
		t.Run(name, func(t *testing.T) {
			k := &soak{}
			for i := range 90 {
				k.usages = append(k.usages, usage{60 << 20, 4 << 20, c.goroutines(i), 8, 18})
			}
			k.reads.Add(&vegeta.Result{Code: 200})
			if c.failed {
				k.reads.Add(&vegeta.Result{Code: 500, Error: "500"})
			}
			got := ""
			if err := k.judge(io.Discard); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("the verdict is %q", got)
			}
		})
	}
}

// waves are of all configs together for half of the time, and then of a fifth of them each time.
func waves(i int) int {
	if i > 45 {
		return 200
	}
	if i%5 == 0 {
		return 600
	}
	return 100
}

func TestSoak_judgeFewSamples(t *testing.T) {
	k := &soak{usages: make([]usage, leastSamples-1)}
	if err := k.judge(io.Discard); err == nil {
		t.Error("too few samples are judged")
	}
	var out strings.Builder
	k.usages = make([]usage, leastSamples)
	if err := k.judge(&out); err != nil || strings.Count(out.String(), "flat\n") != 5 {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestRequireLiving(t *testing.T) {
	const body = `{"data": {"expires_at": %q}}`
	for text, lives := range map[string]bool{
		fmt.Sprintf(body, time.Now().Add(time.Hour).Format(time.RFC3339)):  true,
		fmt.Sprintf(body, time.Now().Add(-time.Hour).Format(time.RFC3339)): false,
		`{}`: false,
	} {
		r := &vegeta.Result{Code: 200, Timestamp: time.Now(), Body: []byte(text)}
		requireLiving(r)
		if (r.Error == "" && r.Code == 200) != lives {
			t.Errorf("%s: %q", text, r.Error)
		}
	}
}
