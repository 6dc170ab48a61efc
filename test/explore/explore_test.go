package explore

import (
	"hash/maphash"
	"os"
	"runtime"
	"testing"
)

const (
	// quickStates are explored by each `go test`, over all scopes together.
	quickStates = 200_000
	// proveStates bounds a scope when TRUSTCAST_PROVE is set: memory, about 3 kB
	// for each world of the newest level.
	proveStates = 3_000_000
)

func newCoder(exact bool) coder {
	return coder{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, exact: exact}
}

// TestExplore walks through each scope and prints what it saw.
func TestExplore(t *testing.T) {
	prove := os.Getenv("TRUSTCAST_PROVE") != ""
	states, moves := 0, uint64(0)
	for _, s := range scopes {
		limit := quickStates
		if prove {
			limit = proveStates
		}
		res := explore(s, realCode(), limit)
		states, moves = states+res.states, moves+res.moves
		how := "closed"
		if !res.closed {
			how = "cut"
		}
		t.Logf("%-22s %9d states %10d transitions, depth %2d, %s, %.1f s", s.name, res.states, res.moves, res.depth, how, res.took.Seconds())
		if res.broken != "" {
			t.Errorf("%s\n%s", res.broken, s.transcript(realCode(), res.way, res.broken))
		}
		runtime.GC()
	}
	t.Logf("together %d states, %d transitions", states, moves)
}
