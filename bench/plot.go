package main

import (
	"cmp"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// plot draws the medians of each row, as shares of the row's greatest, so that
// quantities of different units stand beside each other.
func (t *table) plot(file string) error {
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
