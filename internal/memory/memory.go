// Package memory gives back to the system what a process holds and no longer uses.
//
// A server works in bursts and then waits for hours. Go keeps the heap of a burst
// for minutes, and pools for two collections more, which nothing causes on a quiet
// server; the pages of a large program that only its start needed count as its
// memory for ever. GiveBack returns both once the process is quiet, and costs
// nothing while it is busy; Return does at once.
package memory

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// every is how often GiveBack looks.
	every = 5 * time.Second
	// calm is how much a quiet process may allocate meanwhile (bytes): answers to a
	// few health checks and hosts. More in all is work that used other code.
	calm = 1 << 20
	// least is how much a process allocates before there is something to give back
	// (bytes): Go collects no heap that is smaller.
	least = 4 << 20
)

// GiveBack gives memory back each time that the process, which it has for its own, is
// quiet after it has worked, until ctx ends. Between two collections of its own it lets
// as much be allocated as Go does by default.
func GiveBack(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var h history
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		garbage, pages := h.due(heap())
		if garbage {
			collect()
		}
		if pages {
			_ = unmap() // then they stay, as anywhere else
		}
	}
}

// Return gives both back now, for a process that knows itself when it rests and keeps
// no pools worth a second collection.
func Return() {
	debug.FreeOSMemory()
	_ = unmap() // as above
}

// collect gives back the heap that nobody uses, also what pools hold: that is garbage
// at the second collection.
func collect() {
	runtime.GC()
	debug.FreeOSMemory()
}

// heap returns how many bytes were allocated so far, and how many of them the last
// collection found in use.
func heap() (allocated, live uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}

// history is what the process had allocated in all (bytes) when it was looked at last,
// and when garbage and pages were given back last.
type history struct{ looked, collected, unmapped uint64 }

// due says what to give back now: nothing unless the process is quiet; garbage when
// it has allocated as much as makes Go collect; the program's pages, which costs less,
// when it has done anything worth the name.
func (h *history) due(allocated, live uint64) (garbage, pages bool) {
	quiet := allocated-h.looked <= calm
	h.looked = allocated
	if !quiet {
		return false, false
	}
	if garbage = allocated-h.collected >= max(least, live); garbage {
		h.collected = allocated
	}
	if pages = allocated-h.unmapped >= calm; pages {
		h.unmapped = allocated
	}
	return garbage, pages
}
