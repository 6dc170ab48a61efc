package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// progressView shows a rotation: a table that is redrawn in place on a
// terminal, one line a change anywhere else.
type progressView struct {
	out io.Writer
	// tty is nil when the output is no terminal that can move its cursor.
	tty *os.File
	// drawn is how many lines the table has on the screen, last its text.
	drawn int
	last  string
}

func newProgressView(out io.Writer, getenv func(string) string) *progressView {
	v := &progressView{out: out}
	if f, ok := terminal(out); ok && getenv("TERM") != "dumb" && getenv("TERM") != "" {
		v.tty = f
	}
	return v
}

// show writes what changed. A write that fails must not end the wait: the
// rotation goes on, and the exit code tells its end.
func (v *progressView) show(p *progress, changes []line, s *pb.Status) {
	if v.tty == nil {
		for _, l := range changes {
			_, _ = fmt.Fprintln(v.out, plain(l))
		}
		return
	}
	if s.GetRotation().GetNumber() < p.number {
		return
	}
	lines := v.clip(p.table(s))
	text := strings.Join(lines, "\n")
	if text == v.last {
		return
	}
	v.last = text
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn) // up to the table's first line
	}
	for _, l := range lines {
		b.WriteString(l + "\x1b[K\n") // and wipe what the line had more
	}
	b.WriteString("\x1b[J")
	v.drawn = len(lines)
	_, _ = io.WriteString(v.out, b.String())
}

// end leaves the last table on the screen.
func (v *progressView) end() { v.drawn = 0 }

func plain(l line) string {
	if l.host == "" {
		return fmt.Sprintf("%9s  %-8s  %s", seconds(l.elapsed), l.phase, l.text)
	}
	return fmt.Sprintf("%9s  %-8s  %s %s", seconds(l.elapsed), l.phase, l.host, l.text)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }

// clip keeps lines within the terminal, so that the cursor finds the first one
// again: a wrapped or scrolled line would be drawn twice.
func (v *progressView) clip(lines []string) []string {
	width, height, err := term.GetSize(int(v.tty.Fd()))
	if err != nil {
		width, height = 80, 24 // what a terminal that does not say has
	}
	if len(lines) > height-1 && height > 2 {
		more := len(lines) - (height - 2)
		lines = append(lines[:height-2:height-2], fmt.Sprintf("… and %d more", more))
	}
	for i, l := range lines {
		if r := []rune(l); len(r) > width-1 && width > 1 {
			lines[i] = string(r[:width-1])
		}
	}
	return lines
}

// table is the rotation as it stands: hosts that are waited for first.
func (p *progress) table(s *pb.Status) []string {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	// A strings.Builder takes every write.
	heading := p.heading(s.GetRotation().GetPhase(), s)
	if s.GetRotation().GetPhase() != phaseIdle {
		heading = fmt.Sprintf("rotation %d: %s", p.number, heading)
	}
	_, _ = fmt.Fprintln(tw, heading)
	_, _ = fmt.Fprintln(tw, "HOST\tNEW CA\tCONFIRMED\tOLD CA GONE\t")
	for _, waited := range []bool{true, false} {
		for _, host := range p.hosts {
			if waitedFor(s, host) == waited {
				_, _ = fmt.Fprintln(tw, p.row(host, s))
			}
		}
	}
	_ = tw.Flush()
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	return append(lines, waitTexts(s)...)
}

func (p *progress) row(host string, s *pb.Status) string {
	cells := []string{host}
	current := phaseIndex(s.GetRotation().GetPhase())
	for i, step := range steps {
		cell := ""
		if at, ok := p.done[host][step]; ok {
			cell = seconds(at)
		} else if i <= current && p.passed[host] != "" {
			cell = p.passed[host]
		} else if i == current {
			cell = "waiting"
		}
		cells = append(cells, cell)
	}
	return strings.Join(cells, "\t") + "\t"
}
