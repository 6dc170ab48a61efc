package crash

import (
	"path/filepath"
	"strconv"
	"testing"
)

// leastStorm is the fewest crashes of a storm: a start alone has some points.
const leastStorm = 6

// TestServerStorm kills the server in the middle of a rotation, then at the
// first durable write of its next life, at the second one of the life after,
// and so on, until it lives to the end: what repairs must survive crashes too.
func TestServerStorm(t *testing.T) { storm(t, inServer, "authority.json-3-after-rename") }

// TestAgentStorm does the same to an agent.
func TestAgentStorm(t *testing.T) { storm(t, inAgent, "trusted.json-2-before-rename") }

func storm(t *testing.T, w whom, first string) {
	t.Parallel()
	s := newSite(t, crashing)
	c := crash{at: first, log: filepath.Join(scratch(t), "points-0")}
	s.open(w, c)
	p := s.startProbe(rotation)
	_, err := s.trustcast("ca", "rotate")
	must(t, err) // both points come after the record
	crashes := 0
	for ; s.awaitCrash(w, rotation, c); crashes++ {
		must(t, c.struck(s.victim(w)))
		n := strconv.Itoa(crashes + 1)
		c = crash{at: n, log: filepath.Join(scratch(t), "points-"+n)}
		if w == inAgent {
			s.startAgent(0, c)
		} else {
			s.startServer(c) // whether it comes to serve, awaitCrash sees
		}
	}
	s.finish(rotation, p)
	s.stop()
	t.Logf("%s: %d crashes in a row", t.Name(), crashes)
	if crashes < leastStorm {
		t.Errorf("only %d crashes, expected at least %d", crashes, leastStorm)
	}
}
