package crash

import (
	"fmt"
	"testing"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// Fewest points of a rotation. The server: two keys made and destroyed (6 + 4
// points), the record four times (12), its copies in certs/. An agent: what it
// trusts four times (12), what it installs twice (6).
const (
	leastServer = 30
	leastAgent  = 18
)

// TestServerRotation kills the server at each durable write of a rotation.
func TestServerRotation(t *testing.T) {
	series{least: leastServer, find: findIn(inServer), strike: strikeIn(inServer)}.run(t)
}

// TestAgentRotation kills an agent at each durable write of a rotation.
func TestAgentRotation(t *testing.T) {
	series{least: leastAgent, find: findIn(inAgent), strike: strikeIn(inAgent)}.run(t)
}

// whom says which program crashes.
type whom int

const (
	inServer whom = iota
	inAgent
)

// findIn returns the points that a program passes from `ca rotate` until idle.
func findIn(w whom) func(*testing.T, string) []string {
	return func(t *testing.T, log string) []string {
		c := crash{log: log}
		s := newSite(t, crashing)
		s.open(w, c)
		before := len(c.passed())
		p := s.startProbe()
		_, err := s.trustcast("ca", "rotate")
		must(t, err)
		s.finish(p)
		must(t, c.quiet(s.victim(w)))
		points := c.passed()[before:]
		s.stop()
		return points
	}
}

// strikeIn runs the scenario with a crash.
func strikeIn(w whom) func(*testing.T, crash) bool {
	return func(t *testing.T, c crash) (reached bool) {
		s := newSite(t, crashing)
		s.open(w, c)
		p := s.startProbe()
		_, failed := s.trustcast("ca", "rotate")
		if !s.awaitCrash(w, c) {
			s.finish(p)
			s.stop()
			return false
		}
		must(t, c.struck(s.victim(w)))
		if w == inAgent {
			must(t, failed)
			s.startAgent(0, crash{})
		} else {
			s.resume(failed)
		}
		s.finish(p)
		s.stop()
		return true
	}
}

// open makes a registry with two trusted hosts; one of the programs will crash.
func (s *site) open(w whom, c crash) {
	s.t.Helper()
	of := map[whom]crash{w: c}
	_, err := s.trustcast(s.initArgs()...)
	must(s.t, err)
	if !s.startServer(of[inServer]) {
		s.t.Fatalf("the server crashed before it served:\n%s", s.server.out)
	}
	s.newToken()
	s.startAgent(0, of[inAgent])
	for i := 1; i < agents; i++ {
		s.startAgent(i, crash{})
	}
	_, err = s.await("all hosts trusted", func(st *pb.Status) bool { return s.agents[0].ended() || settled(1)(st) })
	must(s.t, err)
}

func (s *site) victim(w whom) *process {
	if w == inServer {
		return s.server
	}
	return s.agents[0]
}

// awaitCrash waits until the program has crashed, or the rotation has ended
// without that.
func (s *site) awaitCrash(w whom, c crash) bool {
	p := s.victim(w)
	must(s.t, until("the crash", func() (bool, string) {
		if p.ended() {
			return true, ""
		}
		st, err := s.status()
		return err == nil && settled(3)(st), fmt.Sprint(st, err)
	}))
	must(s.t, c.quiet(p))
	return p.ended()
}

// resume starts the server again. A rotation that was not recorded has left
// nothing half done, and its command has failed: it is started again. One that
// was recorded goes on by itself, whatever the command heard.
func (s *site) resume(failed error) {
	s.t.Helper()
	rec, err := s.authority()
	must(s.t, err)
	recorded := rec.Value.Rotation.Number > 0
	if !s.startServer(crash{}) {
		s.t.Fatalf("the server does not start again:\n%s", s.server.out)
	}
	if recorded {
		return
	}
	if failed == nil {
		s.t.Fatal("`ca rotate` said that a rotation has started, but none was recorded")
	}
	st, err := s.status()
	must(s.t, err)
	if st.GetRotation().GetPhase() != "idle" || st.GetGeneration() != 1 {
		s.t.Fatalf("nothing was recorded, but the status is %v", st)
	}
	must(s.t, s.judgeKeys(rec))
	_, err = s.trustcast("ca", "rotate")
	must(s.t, err)
}

// finish waits for the end of the rotation and judges everything.
func (s *site) finish(p *probe) {
	s.t.Helper()
	_, err := s.await("the rotation has ended", settled(3))
	must(s.t, err)
	good := p.good.Load()
	must(s.t, until("handshakes go on", func() (bool, string) { return p.good.Load() >= good+2*agents, "none" }))
	must(s.t, p.stop())
	must(s.t, s.awaitGood(1))
}
