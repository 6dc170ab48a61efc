package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// Fewest points: of joining a second registry, as of the first; of leaving it, those of
// the mark that tells the agent, of the CA and of five files and a lock. The status's do
// not count, and the directory has a port's name, another one in each run.
const leastLeave = 19

// TestAgentSecondJoin kills `trustcast-agent join` of a second registry at each durable
// write, while an agent serves the first. The same line must then succeed, and the
// agent that runs serves both.
func TestAgentSecondJoin(t *testing.T) {
	series{least: leastJoin, sampled: true, find: findInSecond((*second).join), strike: strikeInSecond((*second).join)}.run(t)
}

// TestAgentLeave kills `trustcast-agent leave` at each durable write, while the agent
// serves that registry and another. Repeated, it leaves nothing, and the other registry
// has not noticed.
func TestAgentLeave(t *testing.T) {
	series{least: leastLeave, sampled: true, find: findInSecond((*second).leave), strike: strikeInSecond((*second).leave)}.run(t)
}

// second is a host of one site that joins another, too.
type second struct {
	t     *testing.T
	first *site
	other *site
}

func newSecond(t *testing.T) *second {
	t.Helper()
	s := &second{t: t, first: newSite(t, crashing), other: newSite(t, crashing)}
	for _, site := range []*site{s.first, s.other} {
		site.openEmpty(inServer, crash{log: filepath.Join(scratch(t), "points")})
	}
	s.first.startAgent(0, crash{})
	s.trusted(s.first)
	return s
}

func (s *second) stop() {
	s.first.stop()
	s.other.stop()
}

// trusted waits until the host is, by what the site's server says.
func (s *second) trusted(of *site) {
	s.t.Helper()
	_, err := of.await("the host is trusted", func(st *pb.Status) bool {
		return len(st.GetHosts()) == 1 && st.GetHosts()[0].GetState() == "trusted" && st.GetHosts()[0].GetConnected()
	})
	must(s.t, err)
}

// perform runs a verb of the agent to its end.
func (s *second) perform(c crash, verb string, args ...string) *process {
	s.t.Helper()
	argv := append([]string{filepath.Join(s.first.programs, "trustcast-agent"), verb}, args...)
	argv = append(argv, "--data-dir", s.first.agentDir(0), "--docker-certs-dir", s.first.certsDir(0))
	p, err := start(verb, s.first.env(c.env()...), argv, func(*process) {})
	must(s.t, err)
	s.first.close = append(s.first.close, p.kill)
	must(s.t, until(verb+" ends", func() (bool, string) { return p.ended(), p.out.String() }))
	return p
}

// join is the case of joining: crashed, then again.
func (s *second) join(c crash) (crashed, again *process) {
	line := func(c crash) *process {
		return s.perform(c, "join", s.other.grpc, "--token", s.other.token, "--name", hostName(0))
	}
	if crashed = line(c); c.at != "" && crashed.killed() {
		again = line(crash{})
	}
	if again == nil || again.cmd.ProcessState.Success() {
		s.trusted(s.other)
	}
	return crashed, again
}

// leave is the case of leaving.
func (s *second) leave(c crash) (crashed, again *process) {
	if p, _ := s.join(crash{}); !p.cmd.ProcessState.Success() {
		s.t.Fatalf("join: %v\n%s", p.cmd.ProcessState, p.out)
	}
	if crashed = s.perform(c, "leave", s.other.registry); c.at != "" && crashed.killed() {
		again = s.perform(crash{}, "leave", s.other.registry)
	}
	gone := func(path string) error {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is still there: %w", path, err)
		}
		return nil
	}
	must(s.t, errors.Join(gone(filepath.Join(s.first.certsDir(0), s.other.registry)), gone(filepath.Join(s.first.agentDir(0), "registries"))))
	return crashed, again
}

func findInSecond(do func(*second, crash) (*process, *process)) func(*testing.T, string) []string {
	return func(t *testing.T, log string) []string {
		s, c := newSecond(t), crash{log: log}
		if p, _ := do(s, c); !p.cmd.ProcessState.Success() {
			t.Fatalf("%v: %v\n%s", p.cmd.Args, p.cmd.ProcessState, p.out)
		}
		s.stop()
		return c.passed()
	}
}

func strikeInSecond(do func(*second, crash) (*process, *process)) func(*testing.T, crash) bool {
	return func(t *testing.T, c crash) bool {
		s := newSecond(t)
		boot := filepath.Join(s.first.agentDir(0), "boot.json")
		before, err := os.ReadFile(boot)
		must(t, err)
		p, again := do(s, c)
		if again == nil {
			s.stop()
			return false
		}
		must(t, c.struck(p))
		// What is through is not there any more (4): the second leave says so.
		if code := again.cmd.ProcessState.ExitCode(); !slices.Contains([]int{0, 4}, code) || code == 4 && p.name != "leave" {
			t.Fatalf("again: %v\n%s", again.cmd.ProcessState, again.out)
		}
		s.trusted(s.first)
		after, err := os.ReadFile(boot)
		must(t, err)
		if string(before) != string(after) || s.first.agents[0].ended() {
			t.Errorf("the first registry was served anew: boot %s, before %s\n%s", after, before, s.first.agents[0].out)
		}
		must(t, untilIn(soon, "nothing is left over", func() (bool, string) {
			err := noTemporary(s.first.dir)
			return err == nil, fmt.Sprint(err)
		}))
		s.stop()
		return true
	}
}
