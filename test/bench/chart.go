// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"image/color"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// gap keeps names from what they name, where their font is wider than the one that they are laid out for.
const gap = "    "

// drawChart draws a row for each storage and number of readers: the rates as bars, with a line
// where the floor's ends, and the latencies as curves.
func (r *report) drawChart(path string) {
	plot.DefaultFont.Variant, plotter.DefaultFont.Variant = "Sans", "Sans"
	tiles := draw.Tiles{Rows: 2 * len(r.Compared), Cols: 2, PadX: 14, PadY: 16, PadTop: 8, PadBottom: 8, PadLeft: 8, PadRight: 12}
	canvas := vgsvg.New(900, 240*vg.Length(tiles.Rows))
	drawing := draw.New(canvas)
	drawing.SetColor(color.White)
	drawing.Fill(drawing.Rectangle.Path())
	for i, c := range r.Compared {
		for j, readers := range []int{1, maxConcurrency} {
			c.rateBars(readers).Draw(tiles.At(drawing, 0, 2*i+j))
			c.latencyCurves(readers).Draw(tiles.At(drawing, 1, 2*i+j))
		}
	}
	file := must(os.Create(path))
	must(canvas.WriteTo(file))
	check(file.Close())
}

func (c *comparison) rateBars(readers int) *plot.Plot {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s storage, %s: reads/s", c.Storage, ofReaders(readers))
	floor := c.Cells[readers][wayFloor].Rates()
	var texts plotter.XYLabels
	var rates plotter.Values
	var names []string
	for i, way := range slices.Backward(c.Ways) { // The first is uppermost.
		measured := c.Cells[readers][way].Rates()
		rate := median(measured)
		rates, names = append(rates, rate), append(names, way+gap)
		texts.XYs = append(texts.XYs, plotter.XY{X: rate, Y: float64(len(c.Ways) - 1 - i)})
		texts.Labels = append(texts.Labels, fmt.Sprintf(" %.0f (%.2f×)", rate, median(ratios(measured, floor))))
	}
	bars := must(plotter.NewBarChart(rates, 16))
	bars.Horizontal, bars.Color, bars.LineStyle.Width = true, plotutil.SoftColors[2], 0
	line := must(plotter.NewLine(plotter.XYs{{X: median(floor), Y: -0.5}, {X: median(floor), Y: float64(len(names)) - 0.5}}))
	line.Dashes = []vg.Length{3, 3}
	labels := must(plotter.NewLabels(texts))
	labels.Offset.Y = -3
	p.Add(bars, line, labels)
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, 1.35*slices.Max(rates) // There is room for the labels.
	return p
}

func (c *comparison) latencyCurves(readers int) *plot.Plot {
	p := plot.New()
	p.Title.Text = "latency in ms, by percentile"
	quantiles := []float64{0.5, 0.75, 0.9, 0.95, 0.99, 0.999}
	var curves []any
	for _, way := range c.Ways {
		var curve plotter.XYs
		for x, q := range quantiles {
			curve = append(curve, plotter.XY{X: float64(x), Y: 1000 * median(c.Cells[readers][way].Latencies(q))})
		}
		curves = append(curves, way+gap, curve)
	}
	check(plotutil.AddLinePoints(p, curves...))
	p.Add(plotter.NewGrid())
	p.NominalX("p50", "p75", "p90", "p95", "p99", "p99.9")
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.X.Max += 3.5 // There is room for the legend.
	p.Legend.Top, p.Legend.Padding = true, 3
	return p
}
