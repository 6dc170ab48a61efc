package crash

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// Fewest points of a join. The agent: six files, and one that goes. The server:
// the token, the host, and twice what the fleet knows of it.
const (
	leastJoin     = 20
	leastEnrolled = 12
)

// TestAgentJoin kills `trustcast-agent join` at each durable write. The same
// line must then succeed, as the same host, with a token for one use.
func TestAgentJoin(t *testing.T) {
	series{least: leastJoin, find: findInJoin(inAgent), strike: strikeInJoin(inAgent)}.run(t)
}

// TestServerJoin kills the server at each durable write while a host joins.
func TestServerJoin(t *testing.T) {
	series{least: leastEnrolled, find: findInJoin(inServer), strike: strikeInJoin(inServer)}.run(t)
}

func findInJoin(w whom) func(*testing.T, string) []string {
	return func(t *testing.T, log string) []string {
		c := crash{log: log}
		s := newSite(t, crashing)
		before := s.openEmpty(w, c)
		p := s.join(w, c)
		if !p.cmd.ProcessState.Success() {
			t.Fatalf("join: %v\n%s", p.cmd.ProcessState, p.out)
		}
		must(t, c.quiet(s.server, calm))
		points := c.passed()[before:]
		s.stop()
		return points
	}
}

func strikeInJoin(w whom) func(*testing.T, crash) bool {
	return func(t *testing.T, c crash) bool {
		s := newSite(t, crashing)
		s.openEmpty(w, c)
		p := s.join(w, c)
		if w == inServer {
			p = s.server
			must(t, c.quiet(p, calm))
		}
		if !p.ended() || p.cmd.ProcessState.Success() {
			s.stop()
			return false
		}
		must(t, c.struck(p))
		if w == inServer && !s.startServer(crash{}) {
			t.Fatalf("the server does not start again:\n%s", s.server.out)
		}
		st, err := s.status()
		must(t, err)
		if again := s.join(w, crash{}); !again.cmd.ProcessState.Success() {
			t.Fatalf("the second join: %v\n%s", again.cmd.ProcessState, again.out)
		}
		must(t, s.judgeJoined(st.GetHosts()))
		s.startAgent(0, crash{}) // with what joining left, it must work
		_, err = s.await("the host is trusted", func(st *pb.Status) bool {
			return len(st.GetHosts()) == 1 && st.GetHosts()[0].GetState() == "trusted" && st.GetHosts()[0].GetCovered()
		})
		must(t, err)
		must(t, untilIn(soon, "nothing is left over", func() (bool, string) {
			err := noTemporary(s.dir)
			return err == nil, fmt.Sprint(err)
		}))
		s.stop()
		return true
	}
}

// openEmpty makes a registry with no hosts and a token for one; it returns how
// many points the server has passed if that is the one to crash.
func (s *site) openEmpty(w whom, c crash) (passed int) {
	s.t.Helper()
	_, err := s.trustcast(s.initArgs()...)
	must(s.t, err)
	of := map[whom]crash{w: c}
	if !s.startServer(of[inServer]) {
		s.t.Fatalf("the server crashed before it served:\n%s", s.server.out)
	}
	s.newToken("--uses", "1")
	if w != inServer {
		return 0
	}
	must(s.t, c.quiet(s.server, calm)) // its first copies are written
	return len(c.passed())
}

// join runs the agent's join to its end, with a crash if it is the agent's.
func (s *site) join(w whom, c crash) *process {
	s.t.Helper()
	of := map[whom]crash{w: c}
	p, err := start("join", s.env(of[inAgent].env()...), s.agentArgs(0, "join"), func(*process) {})
	must(s.t, err)
	s.close = append(s.close, p.kill)
	must(s.t, until("join ends", func() (bool, string) { return p.ended(), p.out.String() }))
	return p
}

// judgeJoined: there is one host, the one that was there after the crash if one
// was; it has used the token once, and has exactly its files.
func (s *site) judgeJoined(before []*pb.Host) error {
	st, err := s.status()
	if err != nil {
		return err
	}
	var identity struct {
		HostID string `json:"host_id"`
	}
	if err := readJSON(filepath.Join(s.agentDir(0), "identity.json"), &identity); err != nil {
		return err
	}
	for _, h := range append(before, st.GetHosts()...) {
		if len(st.GetHosts()) != 1 || h.GetId() != identity.HostID || h.GetName() != hostName(0) {
			return fmt.Errorf("after the crash the server knew %v, now %v; the agent is %s", before, st.GetHosts(), identity.HostID)
		}
	}
	token, err := certs.ParseToken(s.token)
	if err != nil {
		return err
	}
	redeemed, err := filepath.Glob(s.record("redeemed/" + token.ID + "-*"))
	if err != nil {
		return err
	}
	for _, path := range redeemed {
		var rec struct {
			Value struct{ Host string }
		}
		if err := readJSON(path, &rec); err != nil {
			return err
		}
		if len(redeemed) != 1 || rec.Value.Host != identity.HostID {
			return fmt.Errorf("the token was redeemed %d times, by %s; the host is %s", len(redeemed), rec.Value.Host, identity.HostID)
		}
	}
	roots, err := s.roots(0)
	if got := string(certs.FingerprintOf(roots...)); err == nil && got != st.GetFingerprint() {
		err = fmt.Errorf("%.12s is installed, wanted is %.12s", got, st.GetFingerprint())
	}
	return errors.Join(err, s.judgeFiles(0))
}
