package registry

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// keptLines is how many lines of an embedded registry's log can be looked at: hours
// of a bad day, and below a megabyte.
const keptLines = 2000

// recentLines keeps the newest lines that were written to it.
type recentLines struct {
	mu    sync.Mutex
	lines [][]byte
	first uint64        // number of lines[0]
	more  chan struct{} // closed by the next line; nil when nobody waits
}

// Write takes one line; slog's handlers write each in one call.
func (r *recentLines) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, bytes.Clone(line))
	if len(r.lines) > keptLines {
		r.lines = r.lines[1:]
		r.first++
	}
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
	return len(line), nil
}

// copy writes the last tail lines (0: all that are kept), and with follow those that
// come until ctx ends. A reader that is too slow misses lines.
func (r *recentLines) copy(ctx context.Context, tail int, follow bool, w io.Writer) error {
	next := uint64(0)
	if tail > 0 {
		r.mu.Lock()
		next = r.first + uint64(max(0, len(r.lines)-tail))
		r.mu.Unlock()
	}
	for {
		lines, more := r.since(&next)
		for _, line := range lines {
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

// since returns the lines from next on, moves it, and what is closed by a further one.
func (r *recentLines) since(next *uint64) ([][]byte, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*next = max(*next, r.first)
	lines := r.lines[*next-r.first:]
	*next += uint64(len(lines))
	if r.more == nil {
		r.more = make(chan struct{})
	}
	return lines, r.more
}
