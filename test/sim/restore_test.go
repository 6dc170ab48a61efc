package sim

import (
	"crypto/x509"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

func (w *world) state() string { return filepath.Join(w.cfg.DataDir, "state") }

// backUp makes a backup of the server, which must be stopped.
func (w *world) backUp(file string) {
	w.t.Helper()
	f, err := os.Create(file)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(server.BackUp(w.t.Context(), server.BackupConfig{DataDir: w.cfg.DataDir}, f), f.Close()); err != nil {
		w.t.Fatal(err)
	}
}

// restore starts the server, which must be stopped, from a backup. It serves
// nobody at first.
func (w *world) restore(file string) {
	w.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = server.Restore(w.t.Context(), server.RestoreConfig{DataDir: w.cfg.DataDir, Force: true}, f)
	if err := errors.Join(err, f.Close()); err != nil {
		w.t.Fatal(err)
	}
	rec, err := w.readRecord()
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.last, w.closed, w.uncovered = rec, true, rec.Value.Rotation.Uncover
	w.mu.Unlock()
	w.startServer()
}

// copyState copies the server's state, which must be stopped.
func (w *world) copyState(dir string) {
	w.t.Helper()
	if err := os.CopyFS(dir, os.DirFS(w.state())); err != nil {
		w.t.Fatal(err)
	}
}

// putBack replaces the server's state, which must be stopped, by a copy.
func (w *world) putBack(dir string) {
	w.t.Helper()
	if err := os.RemoveAll(w.state()); err != nil {
		w.t.Fatal(err)
	}
	if err := os.CopyFS(w.state(), os.DirFS(dir)); err != nil {
		w.t.Fatal(err)
	}
}

// TestRestore: two rotations after the backup, every host has a CA that the restored
// server never heard of. It serves nobody until they have the restored one; who
// joined after the backup is known again.
func TestRestore(t *testing.T) {
	simulate(t, 5, agent.Layers{}, func(w *world) {
		backup := filepath.Join(w.dir, "backup")
		w.server.end(w.t)
		w.backUp(backup)
		w.startServer()
		w.addHost("host-5", agent.Layers{})
		for i := range 2 {
			w.until("all hosts trust", 5*time.Minute, trusted(6))
			w.rotate()
			w.until("the rotation ends", 10*time.Minute, idleAt(uint64(3+2*i)))
		}
		w.until("all hosts trust", 5*time.Minute, trusted(6))
		w.cutLink("host-0", true) // holds the edge closed
		w.server.end(w.t)
		w.restore(backup)
		w.until("host-0 alone is waited for", time.Minute, func(s *pb.Status) bool {
			waits := s.GetRotation().GetWaitingFor()
			return s.GetRotation().GetFrozen() != "" && len(waits) == 1 && waits[0].GetHost() == "host-0"
		})
		if _, err := w.pull(w.host("host-1")); err == nil {
			t.Error("the restored server serves although host-0 would refuse it")
		}
		w.cutLink("host-0", false)
		w.until("all hosts trust the restored CA", 5*time.Minute, trusted(6))
		if made, err := w.pull(w.host("host-5")); !made || err != nil {
			t.Errorf("host-5 joined after the backup and does not pull: made %v, %v", made, err)
		}
		w.rotate()
		w.until("the next rotation ends", 10*time.Minute, func(s *pb.Status) bool {
			return s.GetRotation().GetPhase() == "idle" && s.GetRotation().GetFrozen() == "" && s.GetServing().GetPredecessors() == 1
		})
		w.until("all hosts trust", 5*time.Minute, trusted(6))
	})
}

// TestRestoreOfAFleetThatMovedOn: since the backup, two rotations, one host went away
// and one was removed. All have a CA that the restored server never heard of. The
// present ones have the restored CA within two ticks, and are served once the others
// count as gone; the one that is away gets it when it is back; the removed one is back
// on record and gets it when it asks again.
func TestRestoreOfAFleetThatMovedOn(t *testing.T) {
	simulate(t, 4, agent.Layers{}, func(w *world) {
		w.restoreAfterTwoRotations()
		began := time.Now()
		w.until("the present hosts have the restored CA", settling*w.pace.tick, trusted(2))
		had := time.Since(began)
		if _, err := w.pull(w.host("host-0")); err == nil {
			t.Error("the restored server serves while two may come who would refuse it")
		}
		w.until("it serves, although two give no sign", w.pace.gone+settling*w.pace.tick, func(s *pb.Status) bool {
			return s.GetRotation().GetFrozen() == "" && len(s.GetHosts()) == 4
		})
		served := time.Since(began)
		w.allPull("host-0", "host-3")
		w.refuses("host-1", "host-2")

		began = time.Now()
		w.cutLink("host-1", false)
		w.until("the host that was away trusts the restored CA", time.Minute, trusted(3))
		back := time.Since(began)
		w.allPull("host-1")
		w.refuses("host-2")
		w.until("the removed host is back", 2*time.Hour, trusted(4))
		w.drifted("host-2", false)
		w.allPull(w.names()...)
		t.Logf("after a restore the present hosts have the CA in %s and are served in %s, the one that was away has it in %s, the removed one in %s", had, served, back, time.Since(began))
	})
}

// restoreAfterTwoRotations restores a backup of four hosts of which host-1 is away by
// then and host-2 removed.
func (w *world) restoreAfterTwoRotations() {
	backup := filepath.Join(w.dir, "backup")
	w.server.end(w.t)
	w.backUp(backup)
	w.startServer()
	for i := range 2 {
		w.until("all hosts trust", 5*time.Minute, trusted(4))
		w.rotate()
		w.until("the rotation ends", 10*time.Minute, idleAt(uint64(3+2*i)))
	}
	w.until("all hosts trust", 5*time.Minute, trusted(4))
	w.drifted("host-2", true) // nothing is promised to who is removed
	w.removeHost("host-2")
	w.cutLink("host-1", true)
	w.until("host-1 is gone and host-2 no host", time.Hour, func(s *pb.Status) bool {
		states := map[string]string{}
		for _, h := range s.GetHosts() {
			states[h.GetName()] = h.GetState()
		}
		return maps.Equal(states, map[string]string{"host-0": "trusted", "host-1": "gone", "host-3": "trusted"})
	})
	w.server.end(w.t)
	w.restore(backup)
}

// allPull checks that hosts pull with what is on their disks.
func (w *world) allPull(names ...string) {
	w.t.Helper()
	for _, name := range names {
		if made, err := w.pull(w.host(name)); !made || err != nil {
			w.t.Errorf("%s does not pull: made %v, %v", name, made, err)
		}
	}
}

// refuses checks that what is served is of no CA that hosts have: that they pull later
// proves something.
func (w *world) refuses(names ...string) {
	w.t.Helper()
	for _, name := range names {
		made, err := w.pull(w.host(name))
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !made || !unknown {
			w.t.Errorf("%s should know no CA that serves: made %v, %v", name, made, err)
		}
	}
}

// TestOldCopyFreezes: a server started on an old copy of its state hears that its
// hosts went further, says so and touches nothing.
func TestOldCopyFreezes(t *testing.T) {
	simulate(t, 4, agent.Layers{}, func(w *world) {
		backup := filepath.Join(w.dir, "backup")
		w.server.end(w.t)
		w.copyState(backup)
		w.startServer()
		w.until("all hosts trust", 5*time.Minute, trusted(4))
		w.rotate()
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.until("all hosts trust", 5*time.Minute, trusted(4))
		for _, name := range w.names() {
			w.drifted(name, true) // nothing is promised for a copy
		}
		w.server.end(w.t)
		w.putBack(backup)
		w.mu.Lock()
		w.last, w.closed = record{}, true
		w.mu.Unlock()
		w.startServer()
		w.until("it says that it is superseded", 5*time.Minute, func(s *pb.Status) bool { return s.GetRotation().GetFrozen() != "" })
		if err := w.tryRotate(0); err == nil {
			t.Error("a superseded server starts a rotation")
		}
		for _, name := range w.names() {
			roots, err := readRoots(w.host(name).caFile())
			if err != nil || len(roots) != 1 || roots[0].Subject.CommonName == w.status().GetServing().GetIssuer() {
				t.Errorf("%s has %d roots (%v): it went back", name, len(roots), err)
			}
		}
	})
}
