package crash

import (
	"errors"
	"fmt"
	"testing"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// whom says which program crashes.
type whom int

const (
	inServer whom = iota
	inAgent
)

// event is something that happens to a site whose hosts are trusted, up to its
// end.
type event struct {
	name string
	// least are the points below which a first run is suspicious, by who crashes.
	least map[whom]int
	// tick of the site; empty is the usual one.
	tick string
	// prepare brings the site to where the event can come; nil: it is there.
	prepare func(*site)
	// command is the operator's; without one, the event is that the server starts
	// again.
	command []string
	// recorded says whether the server's disk knows of the event.
	recorded func(*site) bool
	// release lets go on what prepare holds; nil: nothing is held.
	release func(*site)
	// excused says that a client of a host may fail that has seen these roots on
	// disk; nil: none may.
	excused excuse
	want    outcome
}

// findIn returns the points that a program passes from an event to its end.
func findIn(w whom, e event) func(*testing.T, string) []string {
	return func(t *testing.T, log string) []string {
		c := crash{log: log}
		s := newSite(t, crashing)
		p, before := s.ready(w, e, c)
		must(t, s.happen(w, e, c))
		s.release(e)
		s.finish(e, p)
		must(t, c.quiet(s.victim(w), calm))
		points := c.passed()[before:]
		s.stop()
		return points
	}
}

// strikeIn runs the scenario with a crash.
func strikeIn(w whom, e event) func(*testing.T, crash) bool {
	return func(t *testing.T, c crash) (reached bool) {
		s := newSite(t, crashing)
		p, _ := s.ready(w, e, c)
		before, err := s.authority()
		must(t, err)
		failed := s.happen(w, e, c)
		if failed == nil {
			s.release(e)
		}
		if !s.awaitCrash(w, e, c) {
			s.release(e) // it may have crashed before, in another place
			s.finish(e, p)
			s.stop()
			return false
		}
		must(t, c.struck(s.victim(w)))
		if w == inAgent {
			must(t, failed)
			s.startAgent(0, crash{})
		} else {
			s.resume(e, before, failed)
		}
		s.finish(e, p)
		s.stop()
		return true
	}
}

// ready makes a site and brings it to where an event can come; passed is how many
// points the program that will crash has behind it.
func (s *site) ready(w whom, e event, c crash) (p *probe, passed int) {
	s.t.Helper()
	if e.tick != "" {
		s.tick = e.tick
	}
	life := c
	if e.command == nil && w == inServer {
		life = crash{} // the next life is the one that crashes
	}
	s.open(w, life)
	if e.prepare != nil {
		e.prepare(s)
	}
	if e.prepare != nil || c.at == "" { // what belongs to the way here is no point of the event
		must(s.t, c.quiet(s.victim(w), calm))
	}
	return s.startProbe(e), len(c.passed())
}

// happen lets the event come.
func (s *site) happen(w whom, e event, c crash) error {
	if e.command != nil {
		_, err := s.trustcast(e.command...)
		return err
	}
	of := map[whom]crash{w: c}
	if !s.startServer(of[inServer]) {
		return errors.New("the server ended before it served")
	}
	return nil
}

func (s *site) release(e event) {
	if e.release != nil {
		e.release(s)
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
	must(s.t, s.remember())
}

func (s *site) victim(w whom) *process {
	if w == inServer {
		return s.server
	}
	return s.agents[0]
}

// awaitCrash waits until the program has crashed, or the event has ended
// without that.
func (s *site) awaitCrash(w whom, e event, c crash) bool {
	p := s.victim(w)
	must(s.t, until("the crash", func() (bool, string) {
		if p.ended() {
			return true, ""
		}
		st, err := s.status()
		return err == nil && s.ended(e.want, st), fmt.Sprint(st, err)
	}))
	must(s.t, c.quiet(p, forGood))
	return p.ended()
}

// resume starts the server again. An event that was not recorded has left
// nothing half done, and its command has failed: it is repeated. One that was
// recorded goes on by itself, whatever the command heard.
func (s *site) resume(e event, before authorityRecord, failed error) {
	s.t.Helper()
	rec, err := s.authority()
	must(s.t, err)
	recorded := e.recorded(s)
	if !s.startServer(crash{}) {
		s.t.Fatalf("the server does not start again:\n%s", s.server.out)
	}
	if !recorded && e.command != nil {
		s.repeat(e, before, rec, failed)
	}
	s.release(e)
}

func (s *site) repeat(e event, before, rec authorityRecord, failed error) {
	s.t.Helper()
	if failed == nil {
		s.t.Fatalf("`trustcast %v` said that it has begun, but nothing was recorded", e.command)
	}
	st, err := s.status()
	must(s.t, err)
	was, is := before.Value.Rotation, rec.Value.Rotation
	if is.Phase != was.Phase || is.Number != was.Number || is.Generation != was.Generation {
		s.t.Fatalf("nothing was recorded, but the record was %+v and is %+v", was, is)
	}
	if st.GetRotation().GetPhase() != was.Phase || st.GetGeneration() != was.Generation {
		s.t.Fatalf("nothing was recorded, but the status is %v", st)
	}
	must(s.t, s.judgeKeys(rec))
	_, err = s.trustcast(e.command...)
	must(s.t, err)
}

// finish waits for the end of the event and judges everything.
func (s *site) finish(e event, p *probe) {
	s.t.Helper()
	_, err := s.await(e.name+" has ended", func(st *pb.Status) bool { return s.ended(e.want, st) })
	must(s.t, err)
	good := p.good.Load()
	must(s.t, until("handshakes go on", func() (bool, string) { return p.good.Load() >= good+2*agents, "none" }))
	must(s.t, p.stop())
	must(s.t, s.awaitGood(e.want))
}
