package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// table is what one comparison came to.
type table struct {
	name, title string
	// subjects are the columns, ours first.
	subjects []string
	// sizes, when set, is how large each subject is: the table shows how something
	// grows, and is drawn so.
	sizes []float64
	rows  []*row
	goals []goal
	// unequal says what was not the same for all.
	unequal []string
	// headlines are what the README says of it.
	headlines []string
	took      time.Duration
}

// row is one quantity of each subject.
type row struct {
	what, unit string
	samples    map[string][]float64 // by subject, one a round
}

// figure is one of ours, beside a peer's if there is one.
type figure struct {
	ours, peer float64 // peer is NaN when the figure stands alone
	unit       string
}

// ratio is ours over the peer's.
func (f figure) ratio() float64 { return f.ours / f.peer }

// alone says that nobody is beside it.
func (f figure) alone() bool { return math.IsNaN(f.peer) }

// goal is what was asked of a figure: of its ratio, or of itself when it stands alone.
type goal struct {
	what string
	figure
	want   float64
	atMost bool // else at least
}

// got is what is compared with want.
func (g goal) got() float64 {
	if g.alone() {
		return g.ours
	}
	return g.ratio()
}

func (g goal) met() bool {
	if g.atMost {
		return g.got() <= g.want
	}
	return g.got() >= g.want
}

// row returns the row of that name, which is made at the first call.
func (t *table) row(what, unit string) *row {
	for _, r := range t.rows {
		if r.what == what {
			return r
		}
	}
	r := &row{what, unit, map[string][]float64{}}
	t.rows = append(t.rows, r)
	return r
}

// add adds a sample.
func (r *row) add(subject string, value float64) {
	r.samples[subject] = append(r.samples[subject], value)
}

// median of a subject's samples; NaN without any.
func (r *row) median(subject string) float64 { return median(r.samples[subject]) }

// against is our median beside a peer's.
func (r *row) against(peer string) figure {
	return figure{ours: r.median(ours), peer: r.median(peer), unit: r.unit}
}

// of is a subject's median alone.
func (r *row) of(subject string) figure {
	return figure{ours: r.median(subject), peer: math.NaN(), unit: r.unit}
}

func median(samples []float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// mean of what there is; NaN of nothing.
func mean(all []float64) float64 {
	sum := 0.0
	for _, v := range all {
		sum += v
	}
	return sum / float64(len(all))
}

// atLeast and atMost ask something of a figure: its ratio to the peer's, or itself in
// its own unit when it stands alone.
func (t *table) atLeast(what string, f figure, want float64) {
	t.goals = append(t.goals, goal{what: what, figure: f, want: want})
}

func (t *table) atMost(what string, f figure, want float64) {
	t.goals = append(t.goals, goal{what: what, figure: f, want: want, atMost: true})
}

// headline is for the README: one ratio, in words.
func (t *table) headline(format string, args ...any) {
	t.headlines = append(t.headlines, fmt.Sprintf(format, args...))
}

// markdown is the table for people; plot is where its picture is, if anywhere.
func (t *table) markdown(plot string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n", t.title)
	fmt.Fprintf(&b, "| | unit | %s |\n|---|---|%s\n", strings.Join(t.subjects, " | "), strings.Repeat("---:|", len(t.subjects)))
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %s |", r.what, r.unit)
		for _, s := range t.subjects {
			fmt.Fprintf(&b, " %s |", cell(r.samples[s]))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	if len(t.goals) > 0 {
		fmt.Fprintf(&b, "| goal | asked | ours | peer | ratio | |\n|---|---:|---:|---:|---:|---|\n")
		for _, g := range t.goals {
			fmt.Fprintln(&b, g.line())
		}
		b.WriteString("\n")
	}
	for _, u := range t.unequal {
		fmt.Fprintf(&b, "- Not equal: %s\n", u)
	}
	if plot != "" {
		fmt.Fprintf(&b, "\n![%s](%s)\n", t.title, plot)
	}
	b.WriteString("\n")
	return b.String()
}

func (g goal) line() string {
	sign, verdict := "≥", "met"
	if g.atMost {
		sign = "≤"
	}
	if !g.met() { // also of a figure that is not there
		verdict = "**missed**"
	}
	mine := number(g.ours) + " " + g.unit
	if g.alone() {
		return fmt.Sprintf("| %s | %s %s %s | %s | – | – | %s |", g.what, sign, number(g.want), g.unit, mine, verdict)
	}
	return fmt.Sprintf("| %s | %s %s× | %s | %s %s | %s× | %s |", g.what, sign, number(g.want), mine, number(g.peer), g.unit, number(g.ratio()), verdict)
}

// cell is a median and the spread.
func cell(samples []float64) string {
	switch {
	case len(samples) == 0:
		return "–"
	case len(samples) == 1:
		return number(samples[0])
	}
	return fmt.Sprintf("%s (%s–%s)", number(median(samples)), number(slices.Min(samples)), number(slices.Max(samples)))
}

// number has three digits that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.01:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// header is the top of the page.
func header() string {
	out, _ := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	cpu := "unknown processor"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.Trim(name, " \t:\n")
				break
			}
		}
	}
	return fmt.Sprintf("# Results of `make bench`\n\nVersion %s, %s, %s, %d × %s. Medians, with the least and the greatest in brackets where there are several samples; clients run on the same machine.\n\n",
		strings.TrimSpace(string(out)), time.Now().UTC().Format("2006-01-02"), runtime.Version(), runtime.NumCPU(), cpu)
}

// inShort is the top of the page: the headlines, and how many goals were met.
func inShort(tables []*table) string {
	var b strings.Builder
	for _, t := range tables {
		for _, h := range t.headlines {
			fmt.Fprintf(&b, "- %s\n", h)
		}
	}
	b.WriteString("\n")
	met, all := 0, 0
	for _, t := range tables {
		for _, g := range t.goals {
			if all++; g.met() {
				met++
			}
		}
	}
	fmt.Fprintf(&b, "%d of %d goals met.\n\n", met, all)
	return b.String()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
