// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// confidence is that of the intervals around medians, which five rounds suffice for.
const confidence = 0.9

func summarize(values []float64) benchmath.Summary {
	// A sample sorts what it is given.
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds), confidence)
}

func median(values []float64) float64 { return summarize(values).Center }

// ratios divides round by round.
func ratios(values, to []float64) []float64 {
	divided := make([]float64, len(values))
	for i := range values {
		divided[i] = values[i] / to[i]
	}
	return divided
}

// interval is the median's, if there are rounds enough for one.
func interval(rounds []float64) string {
	s := summarize(rounds)
	if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) || len(rounds) == 1 {
		return "–"
	}
	return fmt.Sprintf("%.2f to %.2f", s.Lo, s.Hi)
}

// target is a figure that was aimed at: the median of its rounds, or of the one there is.
type target struct {
	What    string
	Rounds  []float64
	AtLeast bool
	Limit   float64
	Unit    string
}

// Met says whether the limit is kept.
func (t target) Met() bool {
	measured := median(t.Rounds)
	return measured == t.Limit || (measured > t.Limit) == t.AtLeast
}
