// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/prometheus/procfs"
)

// scaleMark is where the part of the document begins that the mode scale writes. Each mode
// keeps the other's part.
const scaleMark = "<!-- make bench-scale writes what follows, and make bench what is above. -->\n"

// report is what the document's first part tells.
type report struct {
	facts
	Image    string
	Compared []*comparison
	Endured  []endurance
	Profiled []profile
}

// scaleReport is what its second part tells.
type scaleReport struct {
	facts
	Mounts []*scaled
}

// facts are about the run.
type facts struct {
	Machine, Load, Vault, Go, Date string
	Duration                       time.Duration
	Rounds                         int
}

func (b *bench) facts(ctx context.Context) facts {
	version := string(must(exec.CommandContext(ctx, os.Getenv("VAULT_SERVER"), "version").Output()))
	release, _, _ := strings.Cut(strings.TrimSpace(version), ",")
	proc := must(procfs.NewDefaultFS())
	gibibytes := float64(*must(proc.Meminfo()).MemTotal) / (1 << 20)
	return facts{
		Machine: fmt.Sprintf("%s, %d cores, %.0f GiB of memory, %s/%s", must(proc.CPUInfo())[0].ModelName, runtime.NumCPU(), gibibytes, runtime.GOOS, runtime.GOARCH),
		Load:    fmt.Sprintf("%.2f", must(proc.LoadAvg()).Load1), Vault: release, Go: runtime.Version(), Date: time.Now().UTC().Format(time.DateOnly),
		Duration: b.duration, Rounds: b.rounds,
	}
}

// runComparison measures all but what the number of configs changes.
func (b *bench) runComparison(ctx context.Context) {
	chart := strings.TrimSuffix(b.out, filepath.Ext(b.out)) + ".svg"
	r := &report{facts: b.facts(ctx), Image: filepath.Base(chart)}
	for _, storage := range []string{"inmem", "raft"} {
		b.compareOn(ctx, storage, r)
	}
	r.drawChart(chart)
	b.writeDocument("compare", r)
}

// compareOn compares on a new server, and measures on it what one kind of storage suffices for.
func (b *bench) compareOn(ctx context.Context, storage string, r *report) {
	s := b.startServer(ctx, storage)
	defer s.stop()
	r.Compared = append(r.Compared, b.compare(ctx, s, storage))
	if storage == "raft" {
		r.Endured = b.endure(ctx, s)
	} else {
		r.Profiled = b.profile(ctx, s, b.dir, time.Duration(b.rounds)*b.duration)
	}
}

// writeDocument replaces one part of the document, which a template makes of data.
func (b *bench) writeDocument(part string, data any) {
	content, err := os.ReadFile(b.out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
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
		"ms": millis, "us": micros, "mib": mebibytes, "readers": ofReaders, "median": median, "ratios": ratios, "interval": interval, "parts": parts,
		"seconds": func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) },
		"kib":     kibibytes,
	}).Parse(templates))
	check(parsed.ExecuteTemplate(&out, name, data))
	return out.String()
}

// dedicated is a dedicated token's p50 to what it must take at least: the service's and the floor's.
func (c *comparison) dedicated(readers int) []float64 {
	least := slices.Clone(c.Floor(readers).P50s)
	for i, service := range c.Cell(wayService, readers).P50s {
		least[i] += service
	}
	return ratios(c.Cell(wayDedicated, readers).P50s, least)
}

// Targets are those of the document's first part.
func (r *report) Targets() (all []target) {
	for _, c := range r.Compared {
		add := func(what string, readers int, rounds []float64, atLeast bool, limit float64) {
			all = append(all, target{fmt.Sprintf("%s: %s, %s", c.Storage, what, ofReaders(readers)), rounds, atLeast, limit, ""})
		}
		shared, most := c.Cell(wayShared, 1), c.Cell(wayShared, maxConcurrency)
		add("shared token's reads/s to the floor's", 1, ratios(shared.Rates, c.Floor(1).Rates), true, 1)
		add("shared token's p99 to the floor's", 1, ratios(shared.P99s, c.Floor(1).P99s), false, 1)
		add("shared token's reads/s to the floor's", maxConcurrency, ratios(most.Rates, c.Floor(maxConcurrency).Rates), true, 1.08)
		add("shared token's p99 to the floor's", maxConcurrency, ratios(most.P99s, c.Floor(maxConcurrency).P99s), false, 1)
		add("shared token's reads/s to kv v1's", maxConcurrency, ratios(most.Rates, c.Cell(wayKV, maxConcurrency).Rates), true, 0.55)
		add("dedicated token's p50 to service + floor's p50", 1, c.dedicated(1), false, 1.10)
	}
	memory := fmt.Sprintf("plugin memory with one config after %d reads, ", manyReads)
	return append(all, single(memory+"the most under load", float64(r.Endured[0].Busy)/(1<<20), 64, " MiB"),
		single(memory+"idle", float64(r.Endured[0].Idle)/(1<<20), 64, " MiB"))
}

// Targets are those of its second part.
func (r scaleReport) Targets() []target {
	one, most := r.Mounts[0], r.Mounts[len(r.Mounts)-1]
	return []target{
		{fmt.Sprintf("reads/s over %d configs to one config", most.Configs), ratios(most.Rates, one.Rates), true, 0.9, ""},
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

func millis(seconds float64) string { return fmt.Sprintf("%.2f ms", seconds*1000) }

func micros(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%d µs", d.Microseconds())
}

func kibibytes(bytes int) string { return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10)) }

func mebibytes(bytes int) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
