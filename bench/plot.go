package main

import (
	"cmp"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// plot draws the table.
func (t *table) plot(file string) error {
	if t.sizes != nil {
		return t.lines(file)
	}
	return t.bars(file)
}

// lines draws how each row grows with the size, as multiples of where it begins, on
// logarithmic axes: what grows as fast as the size is parallel to the dashes.
func (t *table) lines(file string) error {
	p := plot.New()
	p.Title.Text = t.title
	p.X.Label.Text = "size"
	p.Y.Label.Text = "multiple of the first"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	first := t.sizes[0]
	linear := make(plotter.XYs, len(t.sizes))
	for i, x := range t.sizes {
		linear[i] = plotter.XY{X: x, Y: x / first}
	}
	dashes, err := plotter.NewLine(linear)
	if err != nil {
		return err
	}
	dashes.Dashes = plotutil.Dashes(1)
	p.Add(dashes)
	p.Legend.Add("as the size", dashes)
	for i, r := range t.rows {
		var points plotter.XYs
		for j, s := range t.subjects {
			if y := r.median(s) / r.median(t.subjects[0]); y > 0 { // nor NaN: a logarithm is needed
				points = append(points, plotter.XY{X: t.sizes[j], Y: y})
			}
		}
		if len(points) < 2 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, dots.Color = plotutil.Color(i), plotutil.Color(i)
		p.Add(line, dots)
		p.Legend.Add(r.what, line, dots)
	}
	p.Legend.Top, p.Legend.Left = true, true
	return p.Save(vg.Points(640), vg.Points(400), file)
}

// bars draws the medians of each row, as shares of the row's greatest, so that
// quantities of different units stand beside each other.
func (t *table) bars(file string) error {
	p := plot.New()
	p.Title.Text = t.title
	p.Y.Label.Text = "share of the greatest"
	p.Y.Min = 0
	width := vg.Points(cmp.Or(60/float64(len(t.subjects)), 20))
	for i, s := range t.subjects {
		values := make(plotter.Values, len(t.rows))
		for j, r := range t.rows {
			greatest := 0.0
			for _, other := range t.subjects {
				if m := r.median(other); !math.IsNaN(m) {
					greatest = max(greatest, m)
				}
			}
			if m := r.median(s); !math.IsNaN(m) && greatest > 0 {
				values[j] = m / greatest
			}
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.Color = plotutil.Color(i)
		bars.LineStyle.Width = 0
		bars.Offset = width * vg.Length(float64(i)-float64(len(t.subjects)-1)/2)
		p.Add(bars)
		p.Legend.Add(s, bars)
	}
	var names []string
	for _, r := range t.rows {
		names = append(names, r.what)
	}
	p.NominalX(names...)
	p.X.Tick.Label.Rotation = -math.Pi / 9
	p.X.Tick.Label.XAlign = -1
	p.X.Tick.Label.YAlign = -1
	p.Legend.Top = true
	p.Y.Max = 1.4 // room for the legend
	return p.Save(vg.Points(120+110*float64(len(t.rows))), vg.Points(320), file)
}
