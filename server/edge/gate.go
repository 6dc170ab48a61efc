package edge

import (
	"context"
	"fmt"
	"net/http"
	"sync"
)

// Gate is who may pass to the endpoints. Handshakes, and so what hosts prove,
// are the same behind every gate, and nothing in flight is cut by one.
type Gate int

// The gates.
const (
	// Open lets everybody pass.
	Open Gate = iota
	// ReadOnly has writes wait, as Held does with all: a collection is under way.
	ReadOnly
	// Held has requests wait, for Config.HoldLimit at most: the registry is paused.
	Held
	// Closed refuses requests at once: the registry is stopped.
	Closed
)

// String is the gate in words.
func (g Gate) String() string {
	switch g {
	case Open:
		return "open"
	case ReadOnly:
		return "read-only"
	case Held:
		return "held"
	case Closed:
		return "closed"
	}
	return fmt.Sprintf("gate %d", int(g))
}

// gate counts the writes behind it, so that after ReadOnly one can wait for
// those that passed before.
type gate struct {
	mu     sync.Mutex
	state  Gate
	writes int
	// changed is closed, and replaced, with each change of state.
	changed chan struct{}
	// quiet is closed when writes gets to 0; nil when nobody waits for that.
	quiet chan struct{}
}

func newGate() gate { return gate{changed: make(chan struct{})} }

// Gate sets who may pass from now on. All who wait look again. An edge begins
// with Open.
func (e *Edge) Gate(to Gate) {
	g := &e.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == to {
		return
	}
	g.state = to
	close(g.changed)
	g.changed = make(chan struct{})
}

// Quiet returns when no write (anything but GET and HEAD) is behind the gate, from
// passing it to its end. That lasts only while the gate is not Open. When ctx ends
// before, the error says how many there are.
func (e *Edge) Quiet(ctx context.Context) error {
	g := &e.gate
	g.mu.Lock()
	if g.writes == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.quiet == nil {
		g.quiet = make(chan struct{})
	}
	quiet := g.quiet
	g.mu.Unlock()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	left := g.writes
	g.mu.Unlock()
	return fmt.Errorf("wait for writes in flight: %d are left: %w", left, ctx.Err())
}

// pass lets a request through and counts it if it writes, until leave. Else why
// says what is in the way, and changed is closed when that has changed.
func (g *gate) pass(write bool) (why *refusal, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.state == Closed:
		return &stopped, g.changed
	case g.state == Held:
		return &paused, g.changed
	case g.state == ReadOnly && write:
		return &collecting, g.changed
	}
	if write {
		g.writes++
	}
	return nil, g.changed
}

func (g *gate) leave(write bool) {
	if !write {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes--
	if g.writes == 0 && g.quiet != nil {
		close(g.quiet)
		g.quiet = nil
	}
}

func isWrite(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead
}
