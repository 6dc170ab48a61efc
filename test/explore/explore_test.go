package explore

import (
	"hash/maphash"
	"os"
	"runtime"
	"testing"
)

const (
	// quickStates bounds a quick scope: all of them take about half a minute of one
	// core with the race detector.
	quickStates = 60_000
	// quickLeast and proveLeast are how many worlds the quick scopes, and all, have
	// together at the least.
	quickLeast = 200_000
	proveLeast = 1_000_000
	// proveStates bounds a scope when TRUSTCAST_PROVE is set: minutes, and memory,
	// of which a world of the newest level takes about 1.5 kB.
	proveStates = 1_000_000
)

func newCoder(exact bool) coder {
	return coder{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, exact: exact}
}

// TestExplore walks through each scope and prints what it saw. A scope is closed
// when nothing in it is left to see, and cut when there were too many worlds. That
// there was less to see than a scope promises is a failure too.
func TestExplore(t *testing.T) {
	states, moves := 0, uint64(0)
	walkAll := func(scopes []scope, limit, least int) {
		walked := 0
		for _, s := range scopes {
			t.Run(s.name, func(t *testing.T) {
				res := s.walk(t, limit)
				states, moves, walked = states+res.states, moves+res.moves, walked+1
			})
		}
		if walked == len(scopes) && states < least { // -run may choose some
			t.Errorf("all scopes have %d states together, want %d at the least", states, least)
		}
	}
	walkAll(quick, quickStates, quickLeast)
	if os.Getenv("TRUSTCAST_PROVE") != "" {
		walkAll(full, proveStates, proveLeast)
	}
	t.Logf("together %d states, %d transitions", states, moves)
}

func (s scope) walk(t *testing.T, limit int) result {
	res := explore(s, realCode(), limit)
	how := "closed"
	if !res.closed {
		how = "cut"
	}
	t.Logf("%-28s %8d states %9d transitions, depth %2d, %-6s %6.1f s", s.name, res.states, res.moves, res.depth, how, res.took.Seconds())
	if res.broken != "" {
		t.Fatalf("%s\n%s", res.broken, s.transcript(realCode(), res.way, res.broken))
	}
	for _, less := range s.missing(res) {
		t.Error(less)
	}
	runtime.GC() // the next one begins with an empty memory
	return res
}
