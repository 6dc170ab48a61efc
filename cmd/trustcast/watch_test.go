package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// statusOnly is the part of a server that is watched: it says one status, and nothing more.
type statusOnly struct {
	pb.UnimplementedAdminServiceServer
	status *pb.Status
}

func (w *statusOnly) WatchStatus(_ *pb.WatchStatusRequest, stream grpc.ServerStreamingServer[pb.WatchStatusResponse]) error {
	if err := stream.Send(&pb.WatchStatusResponse{Status: w.status}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// TestWatchOutlastsAServerThatDies: one that is killed may take a connection more before
// its socket refuses them; who waits goes on waiting all the same, and says so once.
func TestWatchOutlastsAServerThatDies(t *testing.T) {
	dir, err := os.MkdirTemp("", "tct") // short: a socket is below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "state", "admin.sock")
	if err := os.Mkdir(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	listen := func() net.Listener {
		lis, err := net.Listen("unix", socket)
		if err != nil {
			t.Error(err)
			return nil
		}
		t.Cleanup(func() { _ = lis.Close() })
		return lis
	}
	serve := func(lis net.Listener, phase string) *grpc.Server {
		s := grpc.NewServer()
		t.Cleanup(s.Stop)
		pb.RegisterAdminServiceServer(s, &statusOnly{status: &pb.Status{Rotation: &pb.Rotation{Phase: phase}}})
		go func() { _ = s.Serve(lis) }() // ends with Stop, and says that it did
		return s
	}
	first := serve(listen(), phaseStaged)

	var stderr bytes.Buffer
	a := &app{dataDir: dir, stderr: &stderr}
	died, back := make(chan struct{}), make(chan struct{})
	dies := func() {
		defer close(back)
		select {
		case <-died:
		case <-t.Context().Done():
			return // the watch ended before
		}
		first.Stop()
		dying := listen()
		if dying == nil {
			return
		}
		conn, err := dying.Accept()
		if err != nil {
			return // the watch does not come back, and ends or fails
		}
		_, _ = conn.Close(), dying.Close()
		<-time.After(2 * comeBackIn) // asked again while nobody listens
		serve(listen(), phaseIdle)
	}
	go dies()
	last, err := a.watch(t.Context(), func(s *pb.Status) {
		if s.GetRotation().GetPhase() == phaseStaged {
			close(died)
		}
	}, func(s *pb.Status) bool { return s.GetRotation().GetPhase() == phaseIdle })
	if err != nil || last.GetRotation().GetPhase() != phaseIdle {
		t.Fatalf("phase %s, %v", last.GetRotation().GetPhase(), err)
	}
	<-back
	if said := strings.Count(stderr.String(), "The server went away"); said != 1 {
		t.Errorf("that the server went away was said %d times:\n%s", said, stderr.String())
	}
}
