package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/trustcast/trustcast/certs"
)

// onMachine gives a host a machine of its own with these directories, and installs
// for the runtimes.
func (h *dockerHost) onMachine(runtimes []string, dirs ...string) {
	h.t.Helper()
	h.cfg.Root = filepath.Join(h.cfg.DataDir, "machine")
	h.cfg.DockerCertsDir = filepath.Join(h.cfg.Root, "etc/docker/certs.d")
	h.cfg.Runtimes = runtimes
	for _, dir := range append(dirs, "etc") {
		if err := os.MkdirAll(filepath.Join(h.cfg.Root, dir), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := h.detect(); err != nil {
		h.t.Fatal(err)
	}
	h.moved = make(chan []string, 1)
}

// has says whether a runtime's directory of the machine has the CA.
func (h *dockerHost) has(runtime string) bool {
	_, err := os.Stat(filepath.Join(h.cfg.Root, "etc", runtime, "certs.d/registry.test:5000/ca.crt"))
	return err == nil
}

// TestRuntimeComesLater: the next tick finds it, it gets its CA and is watched; and one
// that is not to be installed for any more loses it, after a restart too.
func TestRuntimeComesLater(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	h := newDockerHost(t)
	h.onMachine([]string{AutoRuntimes})
	if problem := h.reconcile(offerOf(1, 1, pair.Leaf, ca)); problem != "" || !h.has("docker") || h.has("containers") {
		t.Fatalf("at first: %q", problem)
	}
	if err := os.MkdirAll(filepath.Join(h.cfg.Root, "etc/containers"), 0o755); err != nil {
		t.Fatal(err)
	}
	if problem := h.reconcile(nil); problem != "" || h.has("containers") {
		t.Fatalf("without a tick: %q", problem)
	}
	h.detectAgain()
	if problem := h.reconcile(nil); problem != "" || !h.has("containers") {
		t.Fatalf("with one: %q", problem)
	}
	select {
	case dirs := <-h.moved:
		if len(dirs) != 2 {
			t.Errorf("watched are %v", dirs)
		}
	default:
		t.Error("it is not watched")
	}

	again := &membership{cfg: h.cfg, store: h.store, log: h.log, enrolment: h.enrolment}
	again.cfg.Runtimes = []string{"docker"}
	if err := again.load(); err != nil {
		t.Fatal(err)
	}
	if err := again.detect(); err != nil {
		t.Fatal(err)
	}
	if problem := again.reconcile(nil); problem != "" || !h.has("docker") || h.has("containers") {
		t.Errorf("not wanted any more: %q", problem)
	}
	if _, err := os.Stat(filepath.Join(h.cfg.Root, "etc/containers/certs.d")); err == nil {
		t.Error("its directory is left")
	}
	if len(again.owned.Files) != 1 || again.unplanned() {
		t.Errorf("owned: %+v", again.owned)
	}
}

// TestClosedHomeIsNoEvidence: a user who locks the agent out of a home is told of, and
// stops no rotation; one that the operator has listed does.
func TestClosedHomeIsNoEvidence(t *testing.T) {
	alice := os.Geteuid() // who can lock this process out of the own home, unless it is root
	if alice == 0 {
		alice = 65532
	}
	ca, pair := authorityFor(t, "registry.test")
	for list, counts := range map[string]bool{AutoRuntimes: false, "docker,rootless:alice": true} {
		h := newDockerHost(t)
		h.onMachine(nil, "home/alice/.local/share/docker")
		home := filepath.Join(h.cfg.Root, "home/alice")
		h.write(filepath.Join(h.cfg.Root, "etc/passwd"), fmt.Appendf(nil, "alice:x:%d:%d::/home/alice:/bin/sh\n", alice, os.Getegid()))
		for _, err := range []error{os.Chown(home, alice, -1), os.Chmod(home, 0)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		h.cfg.Runtimes = strings.Split(list, ",")
		if err := h.detect(); err != nil || len(h.host.Places) != 2 {
			t.Fatalf("%s: %v, %v", list, h.host, err)
		}
		t.Cleanup(func() { _ = os.Chmod(home, 0o700) })
		problem := h.reconcile(offerOf(1, 1, pair.Leaf, ca))
		e := h.prove(t.Context(), problem)
		if got := e.Problem != "" && !e.Offline; got != counts && !strings.Contains(e.Problem, "registry.test:5000") {
			t.Errorf("%s: counts: %v: %+v", list, got, e)
		}
		if e.Offline == counts || (e.Fingerprint == certs.FingerprintOf(ca)) == counts {
			t.Errorf("%s: evidence %+v", list, e)
		}
		h.reconcile(nil)
		if (h.aside != "") == counts {
			t.Errorf("%s: said of the home: %q", list, h.aside)
		}
	}
}

// TestWatchFollowsPlaces: the directories of a runtime that came are watched, too.
func TestWatchFollowsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var watched atomic.Int32
		a := &membership{drift: make(chan struct{}, 1), moved: make(chan []string, 1)}
		a.cfg.WatchFile = func(ctx context.Context, _ string, _ func()) error {
			watched.Add(1)
			defer watched.Add(-1)
			<-ctx.Done()
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.watch(ctx, []string{"one"}) }()
		synctest.Wait()
		if n := watched.Load(); n != 1 {
			t.Errorf("at first %d are watched", n)
		}
		a.moved <- []string{"one", "two"}
		synctest.Wait()
		if n := watched.Load(); n != 2 {
			t.Errorf("then %d are watched", n)
		}
		<-a.drift // what happened meanwhile is looked at
		cancel()
		if err := <-ended; err != nil || watched.Load() != 0 {
			t.Errorf("at the end: %v, %d watched", err, watched.Load())
		}
	})
}
