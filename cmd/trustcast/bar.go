package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// bar shows how far a transfer is, with its rate and the time that is left, on stderr
// if that is a terminal. Anywhere else it shows nothing.
type bar struct {
	out  io.Writer // nil: no terminal
	what string
	view *progressbar.ProgressBar // made when the total is known
	last time.Time
	// drawn: there is something to wipe.
	drawn bool
}

func (a *app) bar(what string) *bar {
	b := &bar{what: what}
	if f, ok := terminal(a.stderr); ok && a.getenv("TERM") != "dumb" && a.getenv("TERM") != "" {
		b.out = f
	}
	return b
}

// barEvery is how often a bar is drawn; what is over sooner has none.
const barEvery = 100 * time.Millisecond

// show takes how many bytes are done, of about how many. What cannot be shown is no
// reason to stop.
func (b *bar) show(done, total int64) {
	if b.out == nil || total <= 0 || time.Since(b.last) < barEvery {
		return
	}
	b.last = time.Now()
	if b.view == nil {
		b.view = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(b.out), progressbar.OptionSetDescription(b.what),
			progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionSetPredictTime(true),
			progressbar.OptionSetWidth(20), progressbar.OptionClearOnFinish())
		return // the first rate needs some time to be one
	}
	if b.view.GetMax64() != total {
		b.view.ChangeMax64(total)
	}
	b.drawn = true
	_ = b.view.Set64(min(done, total))
}

// end wipes the bar.
func (b *bar) end() {
	if b.drawn {
		b.drawn = false
		_ = b.view.Clear()
	}
}

// transferred is an amount, its time and its rate, for people.
func transferred(n int64, took time.Duration) string {
	rate := float64(n) / max(took.Seconds(), 0.001)
	return fmt.Sprintf("%s in %.1fs (%s/s)", size(n), took.Seconds(), size(int64(rate)))
}

// size is a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for v >= unit && i < 3 {
		v, i = v/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGT"[i])
}
