// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/aclements/go-moremath/stats"
)

// leastSamples are what a trend is judged by: three in each third of three quarters.
const leastSamples = 12

// trend is how one of the numbers of a usage went over a soak.
type trend struct {
	name string
	of   func(usage) int
	// slack is by how much it may differ without being said to grow, beside a tenth of itself.
	slack float64
	text  func(float64) string

	// Means of the first and of the last third, and extremes, all of them after the warm-up. A mean
	// tells waves from growth, which a median does not: configs that are written together exchange
	// their keys together at first, and one by one later.
	early, late, least, most float64
}

// trends takes the first quarter of the samples for warm-up: configs come into use
// then, and the heap finds its size.
func trends(samples []usage) []trend {
	count := func(n float64) string { return fmt.Sprintf("%.0f", n) }
	bytes := func(n float64) string { return mebibytes(int(n)) }
	all := []trend{
		{name: "memory (RSS)", of: func(u usage) int { return u.Resident }, slack: 4 << 20, text: bytes},
		{name: "live heap", of: func(u usage) int { return u.LiveHeap }, slack: 1 << 20, text: bytes},
		{name: "goroutines", of: func(u usage) int { return u.Goroutines }, slack: 32, text: count},
		{name: "threads", of: func(u usage) int { return u.Threads }, slack: 4, text: count},
		{name: "file descriptors", of: func(u usage) int { return u.Files }, slack: 16, text: count},
	}
	samples = samples[len(samples)/4:]
	third := len(samples) / 3
	for i, t := range all {
		var values []float64
		for _, u := range samples {
			values = append(values, float64(t.of(u)))
		}
		all[i].early, all[i].late = stats.Mean(values[:third]), stats.Mean(values[len(values)-third:])
		all[i].least, all[i].most = slices.Min(values), slices.Max(values)
	}
	return all
}

func (t trend) grows() bool { return t.late > t.early+t.early/10+t.slack }

func writeTrends(out io.Writer, all []trend) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "\tearly\tlate\tleast\tmost\t\t\n")
	for _, t := range all {
		verdict := "flat"
		if t.grows() {
			verdict = "GROWING"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t\n", t.name, t.text(t.early), t.text(t.late), t.text(t.least), t.text(t.most), verdict)
	}
	check(table.Flush())
}
