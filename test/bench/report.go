// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// report is everything that docs/performance.md tells.
type report struct {
	*bench
	machine  string
	load     string
	vault    string
	compared []*comparison
	scaled   *scaleResult
	profiled []profileResult
}

func newReport(ctx context.Context, b *bench, vault string) (*report, error) {
	version, err := exec.CommandContext(ctx, vault, "version").Output()
	if err != nil {
		return nil, err
	}
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, err
	}
	memory, err := proc.Meminfo()
	if err != nil {
		return nil, err
	}
	load, err := proc.LoadAvg()
	if err != nil {
		return nil, err
	}
	release, _, _ := strings.Cut(strings.TrimSpace(string(version)), ",")
	return &report{
		bench:   b,
		machine: fmt.Sprintf("%s, %d cores, %.0f GiB of memory, %s/%s", cpuModel(), runtime.NumCPU(), float64(*memory.MemTotal)/(1<<20), runtime.GOOS, runtime.GOARCH),
		load:    fmt.Sprintf("%.2f", load.Load1),
		vault:   release,
	}, nil
}

// cpuModel is the processor's name. procfs reads it on Linux only, and the rest of it
// compiles anywhere.
func cpuModel() string {
	content, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(content)) {
		if label, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(label) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH // Not every architecture names its model.
}

// markdown is the report. image is the file of its chart, beside it.
func (r *report) markdown(image string) []byte {
	var out bytes.Buffer
	r.introduce(&out)
	fmt.Fprintf(&out, "![%s](%s)\n\n", chartTitle, image)
	r.writeTargets(&out)
	for _, c := range r.compared {
		c.write(&out)
	}
	r.scaled.write(&out)
	fmt.Fprintln(&out)
	writeProfiles(&out, r.profiled)
	return out.Bytes()
}

func (r *report) introduce(out io.Writer) {
	fmt.Fprintf(out, `# Performance

Written by `+"`make bench`"+`, which measures all of it again, with `+"`-duration %s -rounds %d`"+`; do not edit.

- Machine: %s; load average when it began: %s
- Software: %s, %s
- Date: %s
- Each figure is the median of %d rounds of %s, measured in turn on one server, every second round backwards. Ratios
  are medians of the ratios within a round. CPU times are means over all rounds.

`, r.duration, r.rounds, r.machine, r.load, r.vault, runtime.Version(), time.Now().UTC().Format(time.DateOnly), r.rounds, r.duration)
	fmt.Fprintf(out, `Vault, the plugins, the simulated token service and the readers share the machine's cores, and everything is on
loopback without TLS. So the absolute figures are those of a busy small machine; the ratios are what carries over. All
readers use one plain HTTP client with connections kept open, and wait for each answer before they ask again.

What is compared:

- **%s**: a plugin that answers every read with the same map, with the engine's fields and size: the price of a
  Vault plugin as such.
- **%s**: `+"`token/<name>`"+` of a config with its defaults.
- **%s**: a secret of the same size in Vault's own key-value store, which runs inside Vault, not in a plugin.
- **%s**: `+"`cache=false`"+`, so that every read is an exchange with a service that takes %d ms.
- **%s**: `+"`lease=true`"+`. At most %d reads a round; their leases are revoked between rounds.

`, wayFloor, wayShared, wayKV, wayDedicated, serviceLatency.Milliseconds(), wayLeased, leasedReads)
}

// target is a ratio that was aimed at.
type target struct {
	what     string
	measured float64
	limit    float64
	atLeast  bool
	unit     string
	rounds   []float64 // what measured is the median of, if it is one
}

func (t target) met() bool {
	if t.atLeast {
		return t.measured >= t.limit
	}
	return t.measured <= t.limit
}

func overRounds(what string, rounds []float64, limit float64, atLeast bool) target {
	return target{what: what, measured: median(rounds), limit: limit, atLeast: atLeast, rounds: rounds}
}

// spread is the range of the rounds.
func (t target) spread() string {
	if len(t.rounds) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f to %.2f", slices.Min(t.rounds), slices.Max(t.rounds))
}

func (r *report) targets() []target {
	var all []target
	for _, c := range r.compared {
		all = append(all, c.targets()...)
	}
	return append(all, r.scaled.targets()...)
}

func (c *comparison) targets() []target {
	told := func(what string, readers int) string {
		return fmt.Sprintf("%s: %s, %s", c.storage, what, ofReaders(readers))
	}
	return []target{
		overRounds(told("shared token's reads/s to the floor's", 1), c.rateRatios(wayShared, wayFloor, 1), 1, true),
		overRounds(told("shared token's p99 to the floor's", 1), c.p99Ratios(wayShared, 1), 1, false),
		overRounds(told("shared token's reads/s to the floor's", maxConcurrency), c.rateRatios(wayShared, wayFloor, maxConcurrency), 1.08, true),
		overRounds(told("shared token's p99 to the floor's", maxConcurrency), c.p99Ratios(wayShared, maxConcurrency), 1, false),
		overRounds(told("shared token's reads/s to kv v1's", maxConcurrency), c.rateRatios(wayShared, wayKV, maxConcurrency), 0.55, true),
		overRounds(told("dedicated token's p50 to service + floor's p50", 1), c.dedicatedRatios(1), 1.10, false),
	}
}

func (r *scaleResult) targets() []target {
	one, most := r.mounts[0], r.mounts[len(r.mounts)-1]
	engine := r.endured[0]
	memory := func(what string, bytes int64) target {
		return target{what: fmt.Sprintf("plugin memory with one config after %d reads, %s", manyReads, what), measured: float64(bytes) / (1 << 20), limit: 64, unit: " MiB"}
	}
	return []target{
		overRounds(fmt.Sprintf("reads/s over %d configs to one config", most.configs), ratios(most.rates, one.rates), 0.9, true),
		{what: fmt.Sprintf("plugin memory for each of %d used configs", most.configs), measured: most.perConfig() / (1 << 10), limit: 4, unit: " KiB"},
		overRounds(fmt.Sprintf("time to the first token after a reload, %d configs to one", most.configs), ratios(most.first, one.first), 1.2, false),
		memory("the most under load", engine.busy),
		memory("idle", engine.idle),
	}
}

func (r *report) writeTargets(out io.Writer) {
	fmt.Fprint(out, "## Targets\n\n| target | aim | measured | single rounds | |\n|---|---|---|---|---|\n")
	for _, t := range r.targets() {
		aim, verdict := "≤", "met"
		if t.atLeast {
			aim = "≥"
		}
		if !t.met() {
			verdict = "**missed**"
		}
		fmt.Fprintf(out, "| %s | %s %.4g%s | %.3g%s | %s | %s |\n", t.what, aim, t.limit, t.unit, t.measured, t.unit, t.spread(), verdict)
	}
	fmt.Fprintln(out)
}

func (c *comparison) rateRatios(way, to string, readers int) []float64 {
	return ratios(c.cells[cellKey{way, readers}].rates(), c.cells[cellKey{to, readers}].rates())
}

func (c *comparison) p99Ratios(way string, readers int) []float64 {
	return ratios(c.cells[cellKey{way, readers}].quantiles(0.99), c.cells[cellKey{wayFloor, readers}].quantiles(0.99))
}

// dedicatedRatios are a dedicated token's p50 to what it must take at least.
func (c *comparison) dedicatedRatios(readers int) []float64 {
	least := c.cells[cellKey{wayFloor, readers}].quantiles(0.5)
	for i := range least {
		least[i] += serviceLatency.Seconds()
	}
	return ratios(c.cells[cellKey{wayDedicated, readers}].quantiles(0.5), least)
}

// realDedicatedRatios are the same to what the simulated service really takes.
func (c *comparison) realDedicatedRatios() []float64 {
	least := c.cells[cellKey{wayFloor, 1}].quantiles(0.5)
	for i := range least {
		least[i] += c.exchange[i]
	}
	return ratios(c.cells[cellKey{wayDedicated, 1}].quantiles(0.5), least)
}

func (c *comparison) write(out io.Writer) {
	fmt.Fprintf(out, "## Reads with %s storage\n\n", c.storage)
	fmt.Fprintf(out, "The data of an answer is %d bytes of JSON.\n", c.answerSize)
	for _, readers := range concurrencies {
		fmt.Fprintf(out, "\n%s:\n\n", ofReaders(readers))
		fmt.Fprint(out, "| | reads/s | to floor | p50 | p99 | p99 to floor | plugin CPU per read | Vault CPU per read |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
		for _, way := range c.ways {
			measured := c.cells[cellKey{way, readers}]
			pluginCPU := "–"
			if measured.hasPlugin {
				pluginCPU = micros(measured.perRead(measured.pluginCPU))
			}
			fmt.Fprintf(out, "| %s | %.0f | %.2f | %s | %s | %.2f | %s | %s |\n", way,
				median(measured.rates()), median(c.rateRatios(way, wayFloor, readers)),
				millis(median(measured.quantiles(0.5))), millis(median(measured.quantiles(0.99))), median(c.p99Ratios(way, readers)),
				pluginCPU, micros(measured.perRead(measured.serverCPU)))
		}
	}
	fmt.Fprintf(out, `
A dedicated token's p50 is %.2f times %d ms plus the floor's p50 with 1 reader, and %.2f times with %d. The simulated
service wakes up late and signs a real JWT: without Vault an exchange with it has a p50 of %s. To that plus the
floor's p50 a dedicated token with 1 reader is %.2f times.

`, median(c.dedicatedRatios(1)), serviceLatency.Milliseconds(), median(c.dedicatedRatios(maxConcurrency)), maxConcurrency,
		millis(median(c.exchange)), median(c.realDedicatedRatios()))
}

func (m *scaled) perConfig() float64 { return float64(m.after-m.before) / float64(m.configs) }

func (r *scaleResult) write(out io.Writer) {
	fmt.Fprintf(out, `## Number of configs

With %s storage and %d readers that pick names at random, after each name was used once. Each mount has a plugin
process of its own. Memory is the process's resident set, before and after each config was used once, and so it holds
what garbage collection has not given back yet; for few configs the difference says nothing about one.

`, r.storage, maxConcurrency)
	fmt.Fprint(out, "| configs | reads/s | to one config | p99 | memory before | after | per config | first token after reload | the same, all in memory before |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	one := r.mounts[0]
	for _, m := range r.mounts {
		perConfig := "–"
		if m.configs >= 1000 {
			perConfig = fmt.Sprintf("%.1f KiB", m.perConfig()/(1<<10))
		}
		fmt.Fprintf(out, "| %d | %.0f | %.2f | %s | %s | %s | %s | %s | %s |\n", m.configs,
			median(m.rates), median(ratios(m.rates, one.rates)), millis(median(m.p99)),
			mebibytes(m.before), mebibytes(m.after), perConfig, millis(median(m.first)), millis(m.firstUsed.Seconds()))
	}
	fmt.Fprintf(out, "\nA reload ends the plugin's process and starts a new one; the time runs from the request to reload until a token\nwas read, the exchange for it included. It is the median of %d; the last column is one reload.\n\n", reloads)
	fmt.Fprintf(out, "## Many reads of one config\n\nMemory is the resident set of a fresh process: the most of it while %d readers go on from %d reads to %d, and\n%s after the last.\n\n", maxConcurrency, settledReads, manyReads, idleTime)
	fmt.Fprintf(out, "| | after %d reads | most under load | idle |\n|---|--:|--:|--:|\n", settledReads)
	for _, e := range r.endured {
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", e.name, mebibytes(e.early), mebibytes(e.busy), mebibytes(e.idle))
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratios divides round by round.
func ratios(values, to []float64) []float64 {
	divided := make([]float64, len(values))
	for i := range values {
		divided[i] = values[i] / to[i]
	}
	return divided
}

func ofReaders(n int) string {
	if n == 1 {
		return "1 reader"
	}
	return fmt.Sprintf("%d readers", n)
}

func millis(seconds float64) string { return fmt.Sprintf("%.2f ms", seconds*1000) }

func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }

func mebibytes(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
