// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"io"
	"slices"
)

// leastSamples are what a trend is judged by: three in each third of three quarters.
const leastSamples = 12

// measure is one of the numbers of a usage, and by how much it may differ over a
// soak without being said to grow, beside a tenth of itself.
type measure struct {
	name  string
	of    func(usage) int64
	slack int64
	text  func(int64) string
}

func measures() []measure {
	count := func(n int64) string { return fmt.Sprint(n) }
	return []measure{
		{"memory (RSS)", func(u usage) int64 { return u.resident }, 4 << 20, mebibytes},
		{"live heap", func(u usage) int64 { return u.liveHeap }, 1 << 20, mebibytes},
		{"goroutines", func(u usage) int64 { return u.goroutines }, 32, count},
		{"threads", func(u usage) int64 { return u.threads }, 4, count},
		{"file descriptors", func(u usage) int64 { return u.openFiles }, 16, count},
	}
}

// trend is how a measure went over a soak.
type trend struct {
	measure
	early, late int64 // means of the first and of the last third, after the warm-up
	least, most int64 // after the warm-up
}

// trends takes the first quarter of the samples for warm-up: configs come into use
// then, and the heap finds its size.
func trends(samples []usage) []trend {
	samples = samples[len(samples)/4:]
	third := len(samples) / 3
	var all []trend
	for _, m := range measures() {
		values := make([]int64, len(samples))
		for i, u := range samples {
			values[i] = m.of(u)
		}
		all = append(all, trend{
			measure: m, early: mean(values[:third]), late: mean(values[len(values)-third:]),
			least: slices.Min(values), most: slices.Max(values),
		})
	}
	return all
}

// mean tells waves from growth, which a median does not: configs that are written together exchange
// their keys together at first, and one by one later.
func mean(values []int64) int64 {
	sum := int64(0)
	for _, v := range values {
		sum += v
	}
	return sum / int64(len(values))
}

func (t trend) grows() bool { return t.late > t.early+t.early/10+t.slack }

func (t trend) verdict() string {
	if t.grows() {
		return "GROWING"
	}
	return "flat"
}

func writeTrends(out io.Writer, all []trend) {
	fmt.Fprintf(out, "%-18s %12s %12s %12s %12s  %s\n", "", "early", "late", "least", "most", "")
	for _, t := range all {
		fmt.Fprintf(out, "%-18s %12s %12s %12s %12s  %s\n", t.name, t.text(t.early), t.text(t.late), t.text(t.least), t.text(t.most), t.verdict())
	}
}
