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
)

// report is everything that docs/performance.md tells.
type report struct {
	*bench
	machine  string
	load     string
	vault    string
	compared []*comparison
	scaled   *scaleResult
}

func newReport(ctx context.Context, b *bench, vault string) (*report, error) {
	version, err := exec.CommandContext(ctx, vault, "version").Output()
	if err != nil {
		return nil, err
	}
	model, err := labelled("/proc/cpuinfo", "model name")
	if err != nil {
		model = runtime.GOARCH // Not every architecture names its model.
	}
	memory, err := kilobytes("/proc/meminfo", "MemTotal")
	if err != nil {
		return nil, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil, err
	}
	lastMinute, _, _ := strings.Cut(string(load), " ")
	release, _, _ := strings.Cut(strings.TrimSpace(string(version)), ",")
	return &report{
		bench:   b,
		machine: fmt.Sprintf("%s, %d cores, %.0f GiB of memory, %s/%s", model, runtime.NumCPU(), float64(memory)/(1<<20), runtime.GOOS, runtime.GOARCH),
		load:    lastMinute,
		vault:   release,
	}, nil
}

func (r *report) markdown() []byte {
	var out bytes.Buffer
	r.introduce(&out)
	r.writeTargets(&out)
	for _, c := range r.compared {
		c.write(&out)
	}
	r.scaled.write(&out)
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
- **%s**: `+"`cache=false`"+`, so that every read buys a token from a service that takes %d ms.
- **%s**: `+"`lease=true`"+`. At most %d reads a round; their leases are revoked between rounds.

`, wayFloor, wayShared, wayKV, wayBought, serviceLatency.Milliseconds(), wayLeased, leasedReads)
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
		for _, readers := range concurrencies {
			all = append(all,
				overRounds(fmt.Sprintf("%s: shared token's reads/s to the floor's, %s", c.storage, ofReaders(readers)), c.rateRatios(wayShared, readers), 0.95, true),
				overRounds(fmt.Sprintf("%s: shared token's p99 to the floor's, %s", c.storage, ofReaders(readers)), c.p99Ratios(wayShared, readers), 1.2, false))
		}
		all = append(all, overRounds(fmt.Sprintf("%s: bought token's p50 to service + floor's p50, 1 reader", c.storage), c.boughtRatios(1), 1.15, false))
	}
	one, most := r.scaled.mounts[0], r.scaled.mounts[len(r.scaled.mounts)-1]
	engine := r.scaled.endured[0]
	return append(all,
		overRounds(fmt.Sprintf("reads/s over %d configs to one config", most.configs), ratios(most.rates, one.rates), 0.9, true),
		target{what: fmt.Sprintf("plugin memory for each of %d used configs", most.configs), measured: most.perConfig() / (1 << 10), limit: 8, unit: " KiB"},
		overRounds(fmt.Sprintf("time to the first token after a reload, %d configs to one", most.configs), ratios(most.first, one.first), 1.2, false),
		target{what: fmt.Sprintf("plugin memory after %d reads to after %d", manyReads, settledReads), measured: float64(engine.late) / float64(engine.early), limit: 1.1})
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

func (c *comparison) rateRatios(way string, readers int) []float64 {
	return ratios(c.cells[cellKey{way, readers}].rates(), c.cells[cellKey{wayFloor, readers}].rates())
}

func (c *comparison) p99Ratios(way string, readers int) []float64 {
	return ratios(c.cells[cellKey{way, readers}].quantiles(0.99), c.cells[cellKey{wayFloor, readers}].quantiles(0.99))
}

// boughtRatios are a bought token's p50 to what it must take at least.
func (c *comparison) boughtRatios(readers int) []float64 {
	least := c.cells[cellKey{wayFloor, readers}].quantiles(0.5)
	for i := range least {
		least[i] += serviceLatency.Seconds()
	}
	return ratios(c.cells[cellKey{wayBought, readers}].quantiles(0.5), least)
}

// realBoughtRatios are the same to what the simulated service really takes.
func (c *comparison) realBoughtRatios() []float64 {
	least := c.cells[cellKey{wayFloor, 1}].quantiles(0.5)
	for i := range least {
		least[i] += c.exchange[i]
	}
	return ratios(c.cells[cellKey{wayBought, 1}].quantiles(0.5), least)
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
				median(measured.rates()), median(c.rateRatios(way, readers)),
				millis(median(measured.quantiles(0.5))), millis(median(measured.quantiles(0.99))), median(c.p99Ratios(way, readers)),
				pluginCPU, micros(measured.perRead(measured.serverCPU)))
		}
	}
	fmt.Fprintf(out, `
A bought token's p50 is %.2f times %d ms plus the floor's p50 with 1 reader, and %.2f times with %d. The simulated
service wakes up late and signs a real JWT: without Vault an exchange with it has a p50 of %s. To that plus the
floor's p50 a bought token with 1 reader is %.2f times.

`, median(c.boughtRatios(1)), serviceLatency.Milliseconds(), median(c.boughtRatios(maxConcurrency)), maxConcurrency,
		millis(median(c.exchange)), median(c.realBoughtRatios()))
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
	fmt.Fprintf(out, "## Many reads of one config\n\n| | memory after %d reads | after %d | ratio |\n|---|--:|--:|--:|\n", settledReads, manyReads)
	for _, e := range r.endured {
		fmt.Fprintf(out, "| %s | %s | %s | %.2f |\n", e.name, mebibytes(e.early), mebibytes(e.late), float64(e.late)/float64(e.early))
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
