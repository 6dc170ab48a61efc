package crash

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// leastInit is the fewest points of an init: four keys, five records and copies.
const leastInit = 27

// TestInit kills `trustcast init` at each durable write. The same line must then
// succeed, or say that the registry is there, which the server must then be
// able to run.
func TestInit(t *testing.T) {
	series{
		least: leastInit,
		find: func(t *testing.T, log string) []string {
			c := crash{log: log}
			s := newSite(t, crashing)
			if p := s.initialize(c); !p.cmd.ProcessState.Success() {
				t.Fatalf("init: %v\n%s", p.cmd.ProcessState, p.out)
			}
			return c.passed()
		},
		strike: func(t *testing.T, c crash) bool {
			s := newSite(t, crashing)
			must(t, c.struck(s.initialize(c)))
			_, err := os.Stat(s.record("site"))
			made := err == nil
			if again := s.initialize(crash{}); again.cmd.ProcessState.Success() == made {
				t.Fatalf("the registry was there: %v; the second init: %v\n%s", made, again.cmd.ProcessState, again.out)
			}
			if !s.startServer(crash{}) {
				t.Fatalf("the server does not start:\n%s", s.server.out)
			}
			must(t, untilIn(soon, "everything is in its place", func() (bool, string) {
				err := s.judgeNew()
				return err == nil, fmt.Sprint(err)
			}))
			s.stop()
			return true
		},
	}.run(t)
}

// initialize runs `trustcast init` to its end.
func (s *site) initialize(c crash) *process {
	s.t.Helper()
	argv := append([]string{s.programs + "/trustcast"}, append(s.initArgs(), "--user", "ci", "--data-dir", s.serverDir())...)
	p, err := start("init", s.env(c.env()...), argv, func(*process) {})
	must(s.t, err)
	s.close = append(s.close, p.kill)
	must(s.t, until("init ends", func() (bool, string) { return p.ended(), p.out.String() }))
	return p
}

// judgeNew looks at a registry that has just been made.
func (s *site) judgeNew() error {
	st, err := s.status()
	if err != nil {
		return err
	}
	rec, err := s.authority()
	if err != nil {
		return err
	}
	var users struct{ Value []struct{ Name string } }
	if err := readJSON(s.record("users"), &users); err != nil {
		return err
	}
	if len(users.Value) != 1 || users.Value[0].Name != "ci" {
		return fmt.Errorf("the users are %v", users.Value)
	}
	return errors.Join(
		judgeRecord(rec, rotated(0)), s.judgeStatus(st, rec, rotated(0)), s.judgeKeys(rec), s.judgeServerFiles(),
		judgeHistory(rec, rotated(0)), s.judgeCopies(rec),
	)
}
