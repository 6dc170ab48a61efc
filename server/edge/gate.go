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

// gate counts the requests behind it, so that after another state one can wait for
// those that passed before.
type gate struct {
	mu            sync.Mutex
	state         Gate
	reads, writes int
	// changed is closed, and replaced, with each change of state.
	changed chan struct{}
	// fewer is closed when writes, or both, get to 0; nil when nobody waits for that.
	fewer chan struct{}
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
	return e.gate.without(ctx, "writes", func(g *gate) int { return g.writes })
}

// Empty is Quiet for all requests, and lasts only while the gate is Held or Closed.
func (e *Edge) Empty(ctx context.Context) error {
	return e.gate.without(ctx, "requests", func(g *gate) int { return g.reads + g.writes })
}

// without waits until none are behind the gate.
func (g *gate) without(ctx context.Context, what string, count func(*gate) int) error {
	for {
		g.mu.Lock()
		left := count(g)
		if left > 0 && g.fewer == nil {
			g.fewer = make(chan struct{})
		}
		fewer := g.fewer
		g.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-fewer:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s in flight: %d are left: %w", what, left, ctx.Err())
		}
	}
}

// pass lets a request through and counts it until leave. Else why
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
	*g.count(write)++
	return nil, g.changed
}

// count is the one that a request is in.
func (g *gate) count(write bool) *int {
	if write {
		return &g.writes
	}
	return &g.reads
}

func (g *gate) leave(write bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*g.count(write)--
	if g.fewer != nil && g.writes == 0 && (write || g.reads == 0) {
		close(g.fewer)
		g.fewer = nil
	}
}

func isWrite(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead
}
