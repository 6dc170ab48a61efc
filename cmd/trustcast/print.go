package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trustcast/trustcast/internal/cli"
)

// table writes aligned columns; cells of a row are separated by tabs.
func table(w io.Writer, rows ...string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(tw, row); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func row(cells ...string) string {
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
	}
	return strings.Join(cells, "\t")
}

// instant is a time in JSON.
func instant(t *timestamppb.Timestamp) *time.Time { return cli.Instant(clock(t)) }

// day is a time for people.
func day(t *timestamppb.Timestamp) string { return cli.Day(clock(t)) }

// clock is zero for an unset time, which the protocol may spell in two ways.
func clock(t *timestamppb.Timestamp) time.Time {
	if t.GetSeconds() == 0 && t.GetNanos() == 0 {
		return time.Time{}
	}
	return t.AsTime()
}

// ago is the age of t at now, for people.
func ago(t, now *timestamppb.Timestamp) string {
	if instant(t) == nil {
		return "never"
	}
	return span(now.AsTime().Sub(t.AsTime())) + " ago"
}

// span is a duration in its largest unit that says something.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return "under 1s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// count says "1 host" or "5 hosts".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// sentence makes one of a step that the server said.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// list is s, but [] and not null in JSON when empty.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// terminal returns the file behind a stream that is a terminal.
func terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// say prints what is not data.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, format+"\n", args...) // a remark; losing it changes nothing
}
