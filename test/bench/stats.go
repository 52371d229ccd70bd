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

// target is a figure that was aimed at: the median of its rounds, or of the one there is.
type target struct {
	What    string
	Rounds  []float64
	atLeast bool
	limit   float64
	unit    string
}

// Aim, Measured, Interval and Verdict are the columns of its row.
func (t target) Aim() string {
	if t.atLeast {
		return fmt.Sprintf("≥ %.4g%s", t.limit, t.unit)
	}
	return fmt.Sprintf("≤ %.4g%s", t.limit, t.unit)
}

func (t target) Measured() string { return fmt.Sprintf("%.3g%s", median(t.Rounds), t.unit) }

// Interval is the median's, if the rounds suffice for one.
func (t target) Interval() string {
	s := summarize(t.Rounds)
	if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) || len(t.Rounds) == 1 {
		return "–"
	}
	return fmt.Sprintf("%.2f to %.2f", s.Lo, s.Hi)
}

func (t target) Verdict() string {
	if measured := median(t.Rounds); measured == t.limit || (measured > t.limit) == t.atLeast {
		return "met"
	}
	return "**missed**"
}
