package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// lockedBuffer takes a program's output while others read it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// indented writes whole lines with a margin.
type indented struct {
	out  io.Writer
	rest string
}

func (w *indented) Write(p []byte) (int, error) {
	lines := strings.SplitAfter(w.rest+string(p), "\n")
	w.rest = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		if _, err := io.WriteString(w.out, "   "+line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
