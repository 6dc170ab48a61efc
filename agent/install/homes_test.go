package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestHomesThatHang keep nobody from Docker's place, and are not waited for again.
func TestHomesThatHang(t *testing.T) {
	s, _ := alice(t)
	if places, err := Places(s, []string{Auto}); err != nil || len(places) < 2 {
		t.Fatalf("the control found %v (%v)", places, err)
	}
	hang, ended := make(chan struct{}), make(chan struct{})
	err := inTime("all users", func() error { <-hang; close(ended); return nil })
	if !errors.Is(err, ErrLate) {
		t.Errorf("waited: %v", err)
	}
	places, err := Places(s, []string{Auto})
	if !errors.Is(err, ErrLate) || len(places) != 1 || places[0].Runtime != RuntimeDocker {
		t.Errorf("found %v (%v)", places, err)
	}
	close(hang)
	<-ended
	forgotten(t)
	if places, err := Places(s, []string{Auto}); err != nil || len(places) < 2 {
		t.Errorf("afterwards it found %v (%v)", places, err)
	}
}

// forgotten returns once nothing is late any more.
func forgotten(t *testing.T) {
	t.Helper()
	for begin := time.Now(); ; {
		late.Lock()
		left := len(late.whose)
		late.Unlock()
		if left == 0 {
			return
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d are late for ever", left)
		}
	}
}

// TestBuildersOfOthers: what a user calls a builder is no command of whoever is told to
// run it, nobody's name of a file leads into what is closed to its user, and few are read.
func TestBuildersOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can act as another user")
	}
	const builder = `{"Driver":"docker-container"}`
	s, home := alice(t)
	instances := filepath.Join(home, ".docker/buildx/instances")
	must(t, os.MkdirAll(instances, 0o700))
	for _, name := range []string{"mine", "x; id", "$(id)", "-f", "a b", "a`id`"} {
		must(t, os.WriteFile(filepath.Join(instances, name), []byte(builder), 0o600))
	}
	closed := s.path("closed")
	must(t, os.MkdirAll(closed, 0o700))
	must(t, os.WriteFile(filepath.Join(closed, "secret"), []byte(builder), 0o600))
	bob := s.path("home/bob")
	must(t, os.MkdirAll(filepath.Join(bob, ".docker/buildx"), 0o755))
	must(t, os.Symlink(closed, filepath.Join(bob, ".docker/buildx/instances")))
	must(t, os.Lchown(bob, nobody-1, nobody-1))
	theirs(t, home)
	told := func() (names []string) {
		for _, m := range s.manual(false) {
			names = append(names, m.Runtime)
		}
		return names
	}
	if got := told(); !slices.Equal(got, []string{"buildx:mine"}) {
		t.Errorf("told of %q", got)
	}
	must(t, os.Chmod(closed, 0o755)) // the control
	must(t, os.Chmod(filepath.Join(closed, "secret"), 0o644))
	if got := told(); !slices.Equal(got, []string{"buildx:mine", "buildx:secret"}) {
		t.Errorf("told of %q", got)
	}
	for i := range 2 * mostBuilders {
		must(t, os.WriteFile(filepath.Join(instances, fmt.Sprint("many", i)), []byte(builder), 0o644))
	}
	if got := told(); len(got) != mostBuilders {
		t.Errorf("told of %d", len(got))
	}
}
