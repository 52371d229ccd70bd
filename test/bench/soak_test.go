// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"io"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

func TestSoak_judge(t *testing.T) {
	flat := func(int) int { return 100 }
	for name, c := range map[string]struct {
		samples    int
		goroutines func(i int) int
		failed     int
		want       string
	}{
		"flat":              {90, flat, 0, "<nil>"},
		"of few samples":    {leastSamples, flat, 0, "<nil>"},
		"of too few":        {leastSamples - 1, flat, 0, "11 samples of the plugin's process are too few to judge by"},
		"growing":           {90, func(i int) int { return 100 + i }, 0, "soak: 1 of 5 measures grow, 0 requests failed"},
		"growing a little":  {90, func(i int) int { return 100 + i/4 }, 0, "<nil>"},
		"falling":           {90, func(i int) int { return 200 - i }, 0, "<nil>"},
		"while warming up":  {90, func(i int) int { return min(100, 5*i) }, 0, "<nil>"},
		"of a small number": {90, func(i int) int { return 4 + i/20 }, 0, "<nil>"},
		"waves that spread": {90, waves, 0, "<nil>"},
		"a failing read":    {90, flat, 1, "soak: 0 of 5 measures grow, 1 requests failed"},
	} {
		t.Run(name, func(t *testing.T) {
			k := &soak{reads: sample{failed: c.failed}}
			for i := range c.samples {
				k.usages = append(k.usages, usage{60 << 20, 4 << 20, c.goroutines(i), 8, 18})
			}
			if got := fmt.Sprint(k.judge(io.Discard)); got != c.want {
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
