package logging

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// journalHandler writes lines as systemd takes them from a service's stderr: a priority
// in front (sd-daemon(3)), and no time, which the journal has.
type journalHandler struct {
	text slog.Handler
	out  *prefixed
}

func newJournal(w io.Writer, least slog.Level) *journalHandler {
	out := &prefixed{w: w}
	return &journalHandler{out: out, text: slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: least,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.LevelKey {
				return slog.Attr{} // the priority says it
			}
			return a
		},
	})}
}

// Enabled says whether lines of a level are written.
func (j *journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return j.text.Enabled(ctx, level)
}

// Handle writes one line.
func (j *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	j.out.mu.Lock()
	defer j.out.mu.Unlock()
	j.out.priority = priority(r.Level)
	r.Time = time.Time{}
	return j.text.Handle(ctx, r)
}

// WithAttrs returns a handler that adds attributes to each line.
func (j *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{j.text.WithAttrs(attrs), j.out}
}

// WithGroup returns a handler that puts attributes into a group.
func (j *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{j.text.WithGroup(name), j.out}
}

// prefixed puts a priority before each line.
type prefixed struct {
	w io.Writer

	mu       sync.Mutex // held while a line is made
	priority string     // of that line
}

// Write takes one line, as slog writes them; the caller holds mu.
func (p *prefixed) Write(line []byte) (int, error) {
	n, err := p.w.Write(append([]byte(p.priority), line...)) // one call: lines do not mix
	return max(n-len(p.priority), 0), err
}

// priority is syslog's of a level.
func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}
