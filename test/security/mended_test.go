package security

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestMendedHostGoesOn: a host that cannot keep what it is offered holds the
// rotation, and goes on by itself once it can, though nobody offers it again.
func TestMendedHostGoesOn(t *testing.T) {
	w := start(t)
	m := w.join("web")
	kept := filepath.Join(m.cfg.DataDir, "trusted.json")
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(kept, 0o700); err != nil { // no file can take its place
		t.Fatal(err)
	}
	w.rotate(time.Minute)
	held := func() bool {
		return w.status().GetRotation().GetPhase() == "staged" && w.host("web").GetProblem() != ""
	}
	until(t, "the host says what is wrong", held)
	if on := w.host("web").GetGeneration(); on != 1 {
		t.Errorf("the host has generation %d on disk, want the first", on)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	until(t, "the rotation ends", func() bool {
		return w.status().GetRotation().GetPhase() == "idle" && w.host("web").GetState() == "trusted"
	})
}

// TestCopyCannotRenew: while the host is there, a copy of its identity gets no
// new key signed: it would lock the host out.
func TestCopyCannotRenew(t *testing.T) {
	w := start(t)
	m := w.join("web")
	thief := m.identity()
	renew := func() codes.Code {
		_, err := w.agentService(&thief).Renew(call(t), &pb.RenewRequest{Csr: newCSR(t, newKey(t), "")})
		return status.Code(err)
	}
	if code := renew(); code != codes.AlreadyExists {
		t.Errorf("beside its host: %v, want AlreadyExists", code)
	}
	// The twin: the same identity alone may renew, it may be the host.
	m.stop()
	until(t, "the stream is closed", func() bool { return !w.host("web").GetConnected() })
	if code := renew(); code != codes.OK {
		t.Errorf("alone: %v, want OK", code)
	}
}
