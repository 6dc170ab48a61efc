package sim

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

func (w *world) state() string { return filepath.Join(w.cfg.DataDir, "state") }

// backUp copies the server's state, which must be stopped.
func (w *world) backUp(dir string) {
	w.t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		w.t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(w.state())); err != nil {
		w.t.Fatal(err)
	}
}

// putBack replaces the server's state, which must be stopped, by a backup.
func (w *world) putBack(dir string) {
	w.t.Helper()
	if err := os.RemoveAll(w.state()); err != nil {
		w.t.Fatal(err)
	}
	if err := os.CopyFS(w.state(), os.DirFS(dir)); err != nil {
		w.t.Fatal(err)
	}
}

// restore starts the server, which must be stopped, from a backup. It serves
// nobody at first.
func (w *world) restore(dir string, made time.Time) {
	w.t.Helper()
	w.putBack(dir)
	if err := server.Restored(w.cfg.DataDir, made, time.Now()); err != nil {
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

// TestRestore: two rotations after the backup, every host has a CA that the restored
// server never heard of. It serves nobody until they have the restored one; who
// joined after the backup is known again.
func TestRestore(t *testing.T) {
	simulate(t, 5, agent.Layers{}, func(w *world) {
		backup := filepath.Join(w.dir, "backup")
		w.server.end(w.t)
		w.backUp(backup)
		made := time.Now()
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
		w.restore(backup, made)
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

// TestOldCopyFreezes: a server started on an old copy of its state hears that its
// hosts went further, says so and touches nothing.
func TestOldCopyFreezes(t *testing.T) {
	simulate(t, 4, agent.Layers{}, func(w *world) {
		backup := filepath.Join(w.dir, "backup")
		w.server.end(w.t)
		w.backUp(backup)
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
