package sim

import (
	"context"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// admin calls the operator's service.
func (w *world) admin(call func(context.Context, pb.AdminServiceClient) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	socket := filepath.Join(w.cfg.DataDir, "state", "admin.sock")
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return w.net.dialFrom("operator")(ctx, "unix", socket)
		}))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return call(ctx, pb.NewAdminServiceClient(conn))
}

func (w *world) createToken(host string) string {
	var token string
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		r, err := c.CreateToken(ctx, &pb.CreateTokenRequest{Host: host})
		token = r.GetToken()
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func (w *world) status() *pb.Status {
	var s *pb.Status
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		r, err := c.GetStatus(ctx, &pb.GetStatusRequest{})
		s = r.GetStatus()
		return err
	})
	if err != nil {
		w.t.Fatalf("status: %v", err)
	}
	return s
}

func (w *world) rotate() { w.rotateWithin(0) }

// rotateWithin starts a rotation that waits for gone hosts that long; 0: as
// configured.
func (w *world) rotateWithin(deadline time.Duration) {
	for len(w.steps) > 0 { // of earlier rotations
		<-w.steps
	}
	if err := w.tryRotate(deadline); err != nil {
		w.t.Fatalf("rotate: %v", err)
	}
}

func (w *world) tryRotate(deadline time.Duration) error {
	return w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RotateCA(ctx, &pb.RotateCARequest{Deadline: durationpb.New(deadline)})
		return err
	})
}

// compromise says that the registry CA's key is stolen.
func (w *world) compromise() {
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RotateCA(ctx, &pb.RotateCARequest{Compromised: true})
		return err
	})
	if err != nil {
		w.t.Fatalf("compromise: %v", err)
	}
}

// rollback takes the rotation under way back.
func (w *world) rollback() {
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RollbackCA(ctx, &pb.RollbackCARequest{})
		return err
	})
	if err != nil {
		w.t.Fatalf("rollback: %v", err)
	}
}

// until waits in simulated time for a condition of the status.
func (w *world) until(what string, limit time.Duration, ok func(*pb.Status) bool) {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		s := w.status()
		if ok(s) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s\nphase %s generation %d, waiting for %v\nhosts %v", what, limit,
				s.GetRotation().GetPhase(), s.GetGeneration(), s.GetRotation().GetWaitingFor(), s.GetHosts())
		}
		time.Sleep(w.pace.poll)
	}
}

// reach waits for the transition into a phase.
func (w *world) reach(phase string) {
	w.t.Helper()
	limit := time.After(10 * time.Minute)
	for {
		select {
		case p := <-w.steps:
			if p == phase {
				return
			}
		case <-limit:
			w.t.Fatalf("the rotation does not get to %s", phase)
		}
	}
}

// rotateAndHold starts a rotation that stays in a phase until release.
func (w *world) rotateAndHold(phase string) {
	w.t.Helper()
	w.mu.Lock()
	w.holdAt = phase
	w.mu.Unlock()
	w.rotate()
	w.reach(phase)
	w.stays(phase)
}

// stays fails unless the rotation is in a phase, now and a tick later.
func (w *world) stays(phase string) {
	w.t.Helper()
	for range 2 {
		if now := w.status().GetRotation().GetPhase(); now != phase {
			w.t.Fatalf("the rotation is %s and should be held in %s", now, phase)
		}
		time.Sleep(tick)
	}
}

func (w *world) release() { w.cutLink("host-0", false) }

func idleAt(generation uint64) func(*pb.Status) bool {
	return func(s *pb.Status) bool {
		return s.GetRotation().GetPhase() == "idle" && s.GetGeneration() >= generation
	}
}

// trusted: n hosts have fresh and complete evidence.
func trusted(n int) func(*pb.Status) bool {
	return count(n, func(s *pb.Status, h *pb.Host) bool {
		return h.GetState() == "trusted" && h.GetGeneration() == s.GetGeneration()
	})
}

// has: n hosts are covered and reported the bundle, be it a while ago.
func has(n int) func(*pb.Status) bool {
	return count(n, func(s *pb.Status, h *pb.Host) bool {
		return h.GetCovered() && h.GetGeneration() == s.GetGeneration()
	})
}

func count(n int, ok func(*pb.Status, *pb.Host) bool) func(*pb.Status) bool {
	return func(s *pb.Status) bool {
		found := 0
		for _, h := range s.GetHosts() {
			if ok(s, h) {
				found++
			}
		}
		return found >= n
	}
}
