// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	chartWidth, panelHeight = 720, 190 // in points

	// gap keeps names from what they name, where their font is wider than the one that they are laid out for.
	gap = "    "
)

// chartQuantiles are the points of a latency curve.
func chartQuantiles() []float64 { return []float64{0.5, 0.75, 0.9, 0.95, 0.99, 0.999} }

// drawChart draws a row for each storage and number of readers: the rates as bars, with a line
// where the floor's ends, and the latencies as curves.
func (r *report) drawChart(path string) {
	var rows [][]*plot.Plot
	for _, c := range r.Compared {
		for _, readers := range c.Readers {
			rows = append(rows, []*plot.Plot{c.rateBars(readers), c.latencyCurves(readers)})
		}
	}
	canvas := vgsvg.New(chartWidth, panelHeight*vg.Length(len(rows)))
	drawing := draw.New(canvas)
	drawing.SetColor(color.White)
	drawing.Fill(drawing.Rectangle.Path())
	tiles := draw.Tiles{Rows: len(rows), Cols: 2, PadX: 12, PadY: 14, PadTop: 6, PadBottom: 6, PadLeft: 6, PadRight: 10}
	for i, cells := range plot.Align(rows, tiles, drawing) {
		for j, cell := range cells {
			rows[i][j].Draw(cell)
		}
	}
	var image bytes.Buffer
	must(canvas.WriteTo(&image))
	check(os.WriteFile(path, image.Bytes(), 0o644))
}

func newPanel(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: 9}
	for _, f := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		*f = sans
	}
	p.Title.TextStyle.Font.Size = 10
	p.Title.Padding = 4
	return p
}

func (c *comparison) rateBars(readers int) *plot.Plot {
	p := newPanel(fmt.Sprintf("%s storage, %s: reads/s", c.Storage, ofReaders(readers)))
	var texts plotter.XYLabels
	var rates plotter.Values
	names := slices.Clone(c.Ways)
	slices.Reverse(names) // The first is uppermost.
	for i, way := range names {
		measured := c.Cell(way, readers).Rates
		rate := median(measured)
		rates = append(rates, rate)
		texts.XYs = append(texts.XYs, plotter.XY{X: rate, Y: float64(i)})
		texts.Labels = append(texts.Labels, fmt.Sprintf(" %.0f (%.2f×)", rate, median(ratios(measured, c.Floor(readers).Rates))))
	}
	floor := median(c.Floor(readers).Rates)
	bars := must(plotter.NewBarChart(rates, 13))
	bars.Horizontal, bars.Color, bars.LineStyle.Width = true, plotutil.SoftColors[2], 0
	line := must(plotter.NewLine(plotter.XYs{{X: floor, Y: -0.5}, {X: floor, Y: float64(len(names)) - 0.5}}))
	line.Dashes = []vg.Length{3, 3}
	labels := must(plotter.NewLabels(texts))
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font, labels.TextStyle[i].YAlign = p.X.Tick.Label.Font, draw.YCenter
	}
	p.Add(bars, line, labels)
	for i := range names {
		names[i] += gap
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, 1.35*slices.Max(rates) // There is room for the labels.
	return p
}

func (c *comparison) latencyCurves(readers int) *plot.Plot {
	p := newPanel("latency in ms, by percentile")
	var names []string
	for _, q := range chartQuantiles() {
		names = append(names, fmt.Sprintf("p%g", 100*q))
	}
	for i, way := range c.Ways {
		var curve plotter.XYs
		for x, q := range chartQuantiles() {
			var rounds []float64
			for _, s := range c.Cell(way, readers).samples {
				rounds = append(rounds, 1000*s.quantile(q))
			}
			curve = append(curve, plotter.XY{X: float64(x), Y: median(rounds)})
		}
		line, points, err := plotter.NewLinePoints(curve)
		check(err)
		line.Color, points.Color, points.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
		p.Add(line, points)
		p.Legend.Add(way+gap, line, points)
	}
	p.Add(plotter.NewGrid())
	p.NominalX(names...)
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.X.Max += 3.5 // There is room for the legend.
	p.Legend.Top, p.Legend.Padding = true, 3
	return p
}
