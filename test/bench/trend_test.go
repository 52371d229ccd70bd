// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"strings"
	"testing"
)

func TestTrends_grows(t *testing.T) {
	flat := func(int) int64 { return 100 }
	for name, c := range map[string]struct {
		goroutines func(i int) int64
		want       bool
	}{
		"flat":              {flat, false},
		"growing":           {func(i int) int64 { return 100 + int64(i) }, true},
		"growing a little":  {func(i int) int64 { return 100 + int64(i)/4 }, false},
		"falling":           {func(i int) int64 { return 200 - int64(i) }, false},
		"while warming up":  {func(i int) int64 { return min(100, 5*int64(i)) }, false},
		"waves that spread": {waves, false},
		"of a small number": {func(i int) int64 { return 4 + int64(i)/20 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			samples := make([]usage, 90)
			for i := range samples {
				samples[i] = usage{resident: 60 << 20, liveHeap: 4 << 20, threads: 8, openFiles: 18, goroutines: c.goroutines(i)}
			}
			for _, trend := range trends(samples) {
				want := c.want && trend.name == "goroutines"
				if trend.grows() != want {
					t.Errorf("%s from %d to %d: grows is %t", trend.name, trend.early, trend.late, !want)
				}
			}
		})
	}
}

// waves are of all configs together for half of the time, and then of a fifth of them each time.
func waves(i int) int64 {
	if i > 45 {
		return 200
	}
	if i%5 == 0 {
		return 600
	}
	return 100
}

func TestTrends_fewestSamples(t *testing.T) {
	var out strings.Builder
	writeTrends(&out, trends(make([]usage, leastSamples)))
	if got := strings.Count(out.String(), "flat\n"); got != len(measures()) {
		t.Errorf("%d measures are said to be flat:\n%s", got, out.String())
	}
}
