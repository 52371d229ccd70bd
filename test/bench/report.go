// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
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
	content, err := os.ReadFile(b.out)
	if !errors.Is(err, fs.ErrNotExist) {
		check(err)
	}
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
		"median": median, "mean": stats.Mean, "ratios": ratios, "interval": interval, "readers": ofReaders, "parts": parts,
		"ms":  func(seconds float64) string { return fmt.Sprintf("%.2f ms", seconds*1e3) },
		"us":  func(seconds float64) string { return fmt.Sprintf("%.0f µs", seconds*1e6) },
		"kib": func(bytes int) string { return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10)) },
		"mib": func(bytes int) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) },
	}).Parse(templates))
	check(parsed.ExecuteTemplate(&out, name, data))
	return out.String()
}

// Targets are those of the document's first part.
func (r *report) Targets() (all []target) {
	for _, c := range r.Compared {
		add := func(what string, readers int, rounds []float64, atLeast bool, limit float64) {
			all = append(all, target{fmt.Sprintf("%s: %s, %s", c.Storage, what, ofReaders(readers)), rounds, atLeast, limit, ""})
		}
		toFloor := func(readers int, leastRate float64) {
			shared, floor := c.Cells[readers][wayShared], c.Cells[readers][wayFloor]
			add("shared token's reads/s to the floor's", readers, ratios(shared.Rates(), floor.Rates()), true, leastRate)
			add("shared token's p99 to the floor's", readers, ratios(shared.Latencies(0.99), floor.Latencies(0.99)), false, 1)
		}
		toFloor(1, 1)
		toFloor(maxConcurrency, 1.08)
		one, most := c.Cells[1], c.Cells[maxConcurrency]
		add("shared token's reads/s to kv v1's", maxConcurrency, ratios(most[wayShared].Rates(), most[wayKV].Rates()), true, 0.55)
		// What a dedicated token must take at least.
		least := one[wayFloor].Latencies(0.5)
		for i, service := range one[wayService].Latencies(0.5) {
			least[i] += service
		}
		add("dedicated token's p50 to service + floor's p50", 1, ratios(one[wayDedicated].Latencies(0.5), least), false, 1.10)
	}
	memory := fmt.Sprintf("plugin memory with one config after %d reads, ", manyReads)
	return append(all, single(memory+"the most under load", float64(r.Endured[0].Busy)/(1<<20), 64, " MiB"),
		single(memory+"idle", float64(r.Endured[0].Idle)/(1<<20), 64, " MiB"))
}

// Targets are those of its second part.
func (r scaleReport) Targets() []target {
	one, most := r.Mounts[0], r.Mounts[len(r.Mounts)-1]
	return []target{
		{fmt.Sprintf("reads/s over %d configs to one config", most.Configs), ratios(most.Rates(), one.Rates()), true, 0.9, ""},
		single(fmt.Sprintf("plugin's live heap for each of %d used configs", most.Configs), float64(most.HeapEach())/(1<<10), 4, " KiB"),
		single(fmt.Sprintf("plugin's resident set for each of %d used configs", most.Configs), float64(most.ResidentEach())/(1<<10), 4, " KiB"),
		{fmt.Sprintf("time to the first token after a restart, %d configs to one", most.Configs), ratios(most.First, one.First), false, 1.2, ""},
	}
}

// single is a target that one measurement must not exceed.
func single(what string, measured, limit float64, unit string) target {
	return target{what, []float64{measured}, false, limit, unit}
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

// ratios divides round by round.
func ratios(values, to []float64) []float64 {
	divided := slices.Clone(values)
	for i := range divided {
		divided[i] /= to[i]
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
