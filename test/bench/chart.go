// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"text/template"
)

// Sizes in the chart, in pixels; the lefts are from its own.
const (
	chartWidth   = 800
	rateLeft     = 160
	rateWidth    = 170
	latencyLeft  = 480
	latencyWidth = 290
	rowHeight    = 22
	rowsTop      = 42 // below a panel's top
	panelGap     = 24
	chartHead    = 16
)

// chart is what chartTemplate draws.
type chart struct {
	Width, Height int
	RateLeft      int
	RateTextLeft  int
	LatencyLeft   int
	Summary       string // for those who do not see it
	Panels        []panel
}

// panel is what one number of readers measured on one storage.
type panel struct {
	Top    int
	Title  string
	Rows   []bar
	Ticks  []tick
	FloorX float64 // where the floor's bar ends
	Bottom int
}

// bar is a way, placed in its panel: its rate as a bar, and a line from its p50 to its p99.
type bar struct {
	Top      int
	Name     string
	Floor    bool
	Width    float64
	Rate     string
	P50, P99 float64 // from the left
	Latency  string
}

type tick struct {
	X    float64
	Text string
}

// figures are a way's medians; latencies are in seconds.
type figures struct {
	way           string
	rate, toFloor float64
	p50, p99      float64
}

// panelFigures is what a panel shows.
type panelFigures struct {
	title string
	rows  []figures
}

// chart draws the comparisons as an SVG that is read without scripts, on light and on
// dark.
func (r *report) chart() ([]byte, error) {
	var panels []panelFigures
	for _, c := range r.compared {
		for _, readers := range concurrencies {
			p := panelFigures{title: fmt.Sprintf("%s storage, %s", c.storage, ofReaders(readers))}
			for _, way := range c.ways {
				measured := c.cells[cellKey{way, readers}]
				p.rows = append(p.rows, figures{way, median(measured.rates()), median(c.rateRatios(way, wayFloor, readers)), median(measured.quantiles(0.5)), median(measured.quantiles(0.99))})
			}
			panels = append(panels, p)
		}
	}
	return drawChart(panels)
}

// drawChart draws panels below one another, with one axis of latencies.
func drawChart(panels []panelFigures) ([]byte, error) {
	axis := axisFor(panels)
	drawn := chart{Width: chartWidth, Height: chartHead, RateLeft: rateLeft, RateTextLeft: rateLeft + rateWidth + 8, LatencyLeft: latencyLeft}
	var summary strings.Builder
	for _, p := range panels {
		drawn.Panels = append(drawn.Panels, layOut(p, axis, drawn.Height))
		drawn.Height += rowsTop + len(p.rows)*rowHeight + panelGap
		fmt.Fprintf(&summary, "%s:", p.title)
		for _, f := range p.rows {
			fmt.Fprintf(&summary, " %s %.0f reads/s, p50 %s, p99 %s;", f.way, f.rate, millis(f.p50), millis(f.p99))
		}
		summary.WriteString("\n")
	}
	drawn.Summary = summary.String()
	pixels := func(x float64) string { return fmt.Sprintf("%.1f", x) }
	parsed, err := template.New("chart").Funcs(template.FuncMap{"px": pixels}).Parse(chartTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, drawn)
	return out.Bytes(), err
}

func layOut(p panelFigures, axis logAxis, top int) panel {
	result := panel{Top: top, Title: p.title, Ticks: axis.ticks(), Bottom: rowsTop + len(p.rows)*rowHeight}
	var most, floor float64
	for _, f := range p.rows {
		most = max(most, f.rate)
		if f.way == wayFloor {
			floor = f.rate
		}
	}
	scale := rateWidth / most
	result.FloorX = rateLeft + floor*scale
	for i, f := range p.rows {
		result.Rows = append(result.Rows, bar{
			Top: rowsTop + rowHeight/2 + i*rowHeight, Name: f.way, Floor: f.way == wayFloor,
			Width: f.rate * scale, Rate: fmt.Sprintf("%.0f (%.2f×)", f.rate, f.toFloor),
			P50: axis.place(f.p50), P99: axis.place(f.p99),
			Latency: fmt.Sprintf("p50 %s, p99 %s", millis(f.p50), millis(f.p99)),
		})
	}
	return result
}

// logAxis has a decade of seconds each so many pixels. Dedicated tokens take ten times
// as long as the rest, which a linear axis would press into a corner.
type logAxis struct{ first, last int }

func axisFor(panels []panelFigures) logAxis {
	least, most := math.Inf(1), 0.0
	for _, p := range panels {
		for _, f := range p.rows {
			least, most = min(least, f.p50), max(most, f.p99)
		}
	}
	return logAxis{int(math.Floor(math.Log10(least))), int(math.Ceil(math.Log10(most)))}
}

func (a logAxis) place(seconds float64) float64 {
	return latencyLeft + latencyWidth*(math.Log10(seconds)-float64(a.first))/float64(max(a.last-a.first, 1))
}

func (a logAxis) ticks() []tick {
	var all []tick
	for decade := a.first; decade <= a.last; decade++ {
		seconds := math.Pow10(decade)
		all = append(all, tick{a.place(seconds), fmt.Sprintf("%g ms", math.Round(seconds*1e6)/1000)})
	}
	return all
}

// chartTitle is the chart's in words.
const chartTitle = "Reads a second and latency, each way of reading next to the floor plugin"

const chartTemplate = `<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" role="img" aria-labelledby="title desc">
<title id="title">` + chartTitle + `</title>
<desc id="desc">{{html .Summary}}</desc>
<style>
  svg { --back: #ffffff; --text: #1f2328; --faint: #59636e; --grid: #d1d9e0; --bar: #0969da; --floor: #818b98; }
  @media (prefers-color-scheme: dark) {
    svg { --back: #0d1117; --text: #f0f6fc; --faint: #9198a1; --grid: #3d444d; --bar: #4493f8; --floor: #818b98; }
  }
  text { font: 12px system-ui, sans-serif; fill: var(--text); }
  .head { font-weight: 600; font-size: 13px; }
  .faint { fill: var(--faint); font-size: 11px; }
  .grid { stroke: var(--grid); }
  .mark { stroke: var(--floor); stroke-dasharray: 3 3; }
  .bar { fill: var(--bar); stroke: var(--bar); }
  .floor { fill: var(--floor); stroke: var(--floor); }
  g text { stroke: none; }
  .range { stroke-width: 2; }
  .hollow { fill: var(--back); stroke-width: 2; }
</style>
<rect width="100%" height="100%" style="fill: var(--back)"/>
{{- range $panel := .Panels}}
<g transform="translate(0 {{.Top}})">
<text class="head" x="12" y="12">{{html .Title}}</text>
<text class="faint" x="{{$.RateLeft}}" y="34">reads/s, and to the floor’s (dashed)</text>
<text class="faint" x="{{$.LatencyLeft}}" y="12">latency, ● p50 to ○ p99</text>
{{- range .Ticks}}
<line class="grid" x1="{{px .X}}" x2="{{px .X}}" y1="40" y2="{{$panel.Bottom}}"/>
<text class="faint" x="{{px .X}}" y="34" text-anchor="middle">{{.Text}}</text>
{{- end}}
{{- range .Rows}}
<g class="{{if .Floor}}floor{{else}}bar{{end}}" transform="translate(0 {{.Top}})">
<title>{{html .Name}}: {{.Rate}} reads/s, {{.Latency}}</title>
<text x="12" y="4">{{html .Name}}</text>
<rect x="{{$.RateLeft}}" y="-6" width="{{px .Width}}" height="12" stroke="none"/>
<text x="{{$.RateTextLeft}}" y="4">{{.Rate}}</text>
<line class="range" x1="{{px .P50}}" x2="{{px .P99}}" y1="0" y2="0"/>
<circle cx="{{px .P50}}" cy="0" r="4.5"/>
<circle class="hollow" cx="{{px .P99}}" cy="0" r="4"/>
</g>
{{- end}}
<line class="mark" x1="{{px .FloorX}}" x2="{{px .FloorX}}" y1="40" y2="{{.Bottom}}"/>
</g>
{{- end}}
</svg>
`
