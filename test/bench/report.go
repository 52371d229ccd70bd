// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/aclements/go-moremath/stats"
	"github.com/prometheus/procfs"
	"golang.org/x/perf/benchmath"
	"gonum.org/v1/gonum/floats"
)

// scaleMark is where the part of the document begins that the mode scale writes. Each mode
// keeps the other's part.
const scaleMark = "<!-- make bench-scale writes what follows, and make bench what is above. -->\n"

// report is what the document's first part tells.
type report struct {
	Facts    map[string]any
	Image    string
	Compared []*comparison
	Endured  []endurance
	Profiled []profile
}

// scaleReport is what its second part tells.
type scaleReport struct {
	Facts  map[string]any
	Mounts []*scaled
}

// Most is the mount with the most configs.
func (r scaleReport) Most() *scaled { return r.Mounts[len(r.Mounts)-1] }

// facts are about the run.
func (b *bench) facts(ctx context.Context) map[string]any {
	version := string(must(exec.CommandContext(ctx, os.Getenv("VAULT_SERVER"), "version").Output()))
	release, _, _ := strings.Cut(strings.TrimSpace(version), ",")
	proc := must(procfs.NewDefaultFS())
	return map[string]any{
		"Processor": must(proc.CPUInfo())[0].ModelName, "Cores": runtime.NumCPU(), "Platform": runtime.GOOS + "/" + runtime.GOARCH,
		"GiB": float64(*must(proc.Meminfo()).MemTotal) / (1 << 20), "Load": must(proc.LoadAvg()).Load1,
		"Vault": release, "Go": runtime.Version(), "Date": time.Now().UTC().Format(time.DateOnly),
		"Duration": b.duration, "Rounds": b.rounds,
	}
}

// writeDocument replaces one part of the document, which a template makes of data.
func (b *bench) writeDocument(part string, data any) {
	content, _ := os.ReadFile(b.out) // There may be none yet.
	compared, scaled, _ := strings.Cut(string(content), scaleMark)
	if part == "compare" {
		compared = render(part, data)
	} else {
		scaled = render(part, data)
	}
	check(os.WriteFile(b.out, []byte(compared+scaleMark+scaled), 0o644))
}

//go:embed report.md.tmpl
var templates string

// render is what a template makes of data.
func render(name string, data any) string {
	var out strings.Builder
	parsed := must(template.New("").Funcs(template.FuncMap{
		"mean": stats.Mean, "median": median, "ratios": ratios, "sums": sums, "target": target, "readers": ofReaders, "parts": parts,
		"ms":   func(seconds float64) string { return fmt.Sprintf("%.2f ms", seconds*1e3) },
		"us":   func(seconds float64) string { return fmt.Sprintf("%.0f µs", seconds*1e6) },
		"kib":  func(bytes int) string { return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10)) },
		"mib":  func(bytes int) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) },
		"kibi": func(bytes int) []float64 { return []float64{float64(bytes) / (1 << 10)} },
		"mebi": func(bytes int) []float64 { return []float64{float64(bytes) / (1 << 20)} },
		"busy": func(cores int, r rounds) float64 { return float64(cores) / median(r.Rates()) },
		"more": func(all, part float64) float64 { return all / (all - part) },
	}).Parse(templates))
	check(parsed.ExecuteTemplate(&out, name, data))
	return out.String()
}

func ofReaders(n int) string {
	if n == 1 {
		return "1 reader"
	}
	return fmt.Sprintf("%d readers", n)
}

// confidence is that of the intervals around medians, which five rounds suffice for.
const confidence = 0.9

func summarize(values []float64) benchmath.Summary {
	// A sample sorts what it is given.
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds), confidence)
}

func median(values []float64) float64 { return summarize(values).Center }

// ratios divides round by round, and sums adds.
func ratios(values, to []float64) []float64 { return floats.DivTo(slices.Clone(values), values, to) }
func sums(a, b []float64) []float64         { return floats.AddTo(slices.Clone(a), a, b) }

// target is a row about a figure that was aimed at: the median of its rounds, or of the one there
// is, and the interval of that if there are rounds enough for one.
func target(what string, rounds []float64, aim string, limit float64, unit string) string {
	s := summarize(rounds)
	interval, verdict := "–", "**missed**"
	if !math.IsInf(s.Lo, 0) && !math.IsInf(s.Hi, 0) && len(rounds) > 1 {
		interval = fmt.Sprintf("%.2f to %.2f", s.Lo, s.Hi)
	}
	if s.Center == limit || (s.Center > limit) == (aim == "≥") {
		verdict = "met"
	}
	return fmt.Sprintf("| %s | %s %g%s | %.3g%s | %s | %s |", what, aim, limit, unit, s.Center, unit, interval, verdict)
}
