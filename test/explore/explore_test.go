package explore

import (
	"hash/maphash"
	"os"
	"runtime"
	"testing"
)

const (
	// quickStates bounds what each `go test` explores, all quick scopes together, of
	// which it may cut the last: about a minute of one core with the race detector.
	quickStates = 240_000
	// proveStates bounds a scope when TRUSTCAST_PROVE is set: minutes, and memory,
	// of which a world of the newest level takes about 1.5 kB.
	proveStates = 1_000_000
)

func newCoder(exact bool) coder {
	return coder{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, exact: exact}
}

// TestExplore walks through each scope and prints what it saw. A scope is closed
// when nothing in it is left to see, and cut when there were too many worlds.
func TestExplore(t *testing.T) {
	states, moves := 0, uint64(0)
	walkAll := func(scopes []scope, limit func() int) {
		for _, s := range scopes {
			res := explore(s, realCode(), limit())
			states, moves = states+res.states, moves+res.moves
			how := "closed"
			if !res.closed {
				how = "cut"
			}
			t.Logf("%-26s %8d states %9d transitions, depth %2d, %-6s %6.1f s", s.name, res.states, res.moves, res.depth, how, res.took.Seconds())
			if res.broken != "" {
				t.Errorf("%s\n%s", res.broken, s.transcript(realCode(), res.way, res.broken))
			}
			runtime.GC() // the next one begins with an empty memory
		}
	}
	walkAll(quick, func() int { return max(1, quickStates-states) })
	if os.Getenv("TRUSTCAST_PROVE") != "" {
		walkAll(full, func() int { return proveStates })
	}
	t.Logf("together %d states, %d transitions", states, moves)
}
