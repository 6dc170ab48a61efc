package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// fakeServer is what a server says to who rotates and waits.
type fakeServer struct {
	pb.UnimplementedAdminServiceServer
	statuses []*pb.Status
	watched  chan struct{} // if given, takes each watch
	history  []*pb.HistoryEntry
}

func (f *fakeServer) RotateCA(context.Context, *pb.RotateCARequest) (*pb.RotateCAResponse, error) {
	return &pb.RotateCAResponse{Rotation: 4, Generation: 8, Started: true}, nil
}

func (f *fakeServer) WatchStatus(_ *pb.WatchStatusRequest, stream grpc.ServerStreamingServer[pb.WatchStatusResponse]) error {
	if f.watched != nil {
		f.watched <- struct{}{}
	}
	for _, s := range f.statuses {
		if err := stream.Send(&pb.WatchStatusResponse{Status: s}); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func inPhase(phase string) *fakeServer {
	return &fakeServer{statuses: []*pb.Status{at(phase, 8)}, history: []*pb.HistoryEntry{}}
}

func isIdle(s *pb.Status) bool { return s.GetRotation().GetPhase() == phaseIdle }

// when does something once, beside the test.
func when(t *testing.T, asked <-chan struct{}, do func()) (done <-chan struct{}) {
	c := make(chan struct{})
	go func() {
		defer close(c)
		select {
		case <-asked:
			do()
		case <-t.Context().Done():
		}
	}()
	t.Cleanup(func() { <-c })
	return c
}

// outside returns what does something once, outside of the simulated time that it is
// called in: time would stand still for a server.
func outside(t *testing.T, do func()) (now func()) {
	asked := make(chan struct{})
	done := when(t, asked, do)
	return func() {
		close(asked)
		<-done
	}
}

// TestWatchOutlastsAServerThatDies: one that is killed may take a connection more before
// its socket refuses them; who waits goes on waiting all the same, and says so once.
func TestWatchOutlastsAServerThatDies(t *testing.T) {
	dir, socket := adminSocket(t)
	first := serveAdmin(t, listenAt(t, socket), inPhase(phaseStaged))

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
		dying := listenAt(t, socket)
		if dying == nil {
			return
		}
		conn, err := dying.Accept()
		if err != nil {
			return // the watch does not come back, and ends or fails
		}
		_, _ = conn.Close(), dying.Close()
		<-time.After(2 * comeBackIn) // asked again while nobody listens
		serveAdmin(t, listenAt(t, socket), inPhase(phaseIdle))
	}
	go dies()
	last, err := a.watch(t.Context(), func(s *pb.Status) {
		if !isIdle(s) {
			close(died)
		}
	}, isIdle)
	if err != nil || !isIdle(last) {
		t.Fatalf("phase %s, %v", last.GetRotation().GetPhase(), err)
	}
	<-back
	if said := strings.Count(stderr.String(), "The server went away"); said != 1 {
		t.Errorf("that the server went away was said %d times:\n%s", said, stderr.String())
	}
}

// TestWatchOutlastsAStopAndAStart: a server that is stopped beside a slow pull is away
// for as long as a stop may take, and then another one starts.
func TestWatchOutlastsAStopAndAStart(t *testing.T) {
	dir, socket := adminSocket(t)
	first := serveAdmin(t, listenAt(t, socket), inPhase(phaseStaged))
	stop := outside(t, first.Stop)
	start := outside(t, func() { serveAdmin(t, listenAt(t, socket), inPhase(phaseIdle)) })
	a := &app{dataDir: dir, stderr: &bytes.Buffer{}}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			select {
			case <-ctx.Done():
			case <-time.After(server.StopLimit + 30*time.Second):
				start()
			}
		}()
		last, err := a.watch(ctx, func(s *pb.Status) {
			if !isIdle(s) {
				stop()
			}
		}, isIdle)
		if err != nil || !isIdle(last) {
			t.Errorf("phase %s, %v", last.GetRotation().GetPhase(), err)
		}
	})
}

// TestRotateOutlastsAServerThatDiesFirst: a server that is killed when it has said that a
// rotation runs, and nothing else, is waited for; one that never answered is not.
func TestRotateOutlastsAServerThatDiesFirst(t *testing.T) {
	dir, socket := adminSocket(t)
	rotate := func(stderr *bytes.Buffer) error {
		return run(t.Context(), []string{"ca", "rotate", "--wait", "--yes", "--data-dir", dir}, func(string) string { return "" }, strings.NewReader(""), io.Discard, stderr)
	}
	var stderr bytes.Buffer
	if err := rotate(&stderr); cli.Code(err) != cli.Unreachable || stderr.Len() > 0 {
		t.Fatalf("without a server: %v\n%s", err, stderr.String())
	}
	dying := &fakeServer{watched: make(chan struct{})}
	first := serveAdmin(t, listenAt(t, socket), dying)
	when(t, dying.watched, func() {
		first.Stop()
		serveAdmin(t, listenAt(t, socket), inPhase(phaseIdle))
	})
	if err := rotate(&stderr); err != nil {
		t.Errorf("%v\n%s", err, stderr.String())
	}
	if said := strings.Count(stderr.String(), "The server went away"); said != 1 {
		t.Errorf("that the server went away was said %d times:\n%s", said, stderr.String())
	}
}

// TestWatchSaysWhyItEnds: the end of a wait has its reason, and comes at once where time
// mends nothing.
func TestWatchSaysWhyItEnds(t *testing.T) {
	for _, c := range []struct {
		what  string
		after func(t *testing.T, socket string) // the server is gone
		takes time.Duration                     // at most
		says  string
	}{
		{"nobody comes", func(*testing.T, string) {}, comeBack + time.Second, "did not come back within 1m30s; nothing is lost, it carries on when it is started again: no server runs in "},
		{"somebody else comes", notOurs, time.Second, notOursSays()},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir, socket := adminSocket(t)
			first := serveAdmin(t, listenAt(t, socket), inPhase(phaseStaged))
			stop := outside(t, func() {
				first.Stop()
				c.after(t, socket)
			})
			a := &app{dataDir: dir, stderr: &bytes.Buffer{}}
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				last, err := a.watch(t.Context(), func(*pb.Status) { stop() }, isIdle)
				if took := time.Since(began); last == nil || cli.Code(err) != cli.Unreachable || !strings.Contains(err.Error(), c.says) || took > c.takes {
					t.Errorf("after %s: exit code %d, %v", took, cli.Code(err), err)
				}
			})
		})
	}
}

// notOurs makes the socket one that this user must not or cannot ask.
func notOurs(t *testing.T, socket string) {
	if os.Geteuid() == 0 { // who may do anything, but trusts nobody else
		listenAs(t, socket, stranger)
		return
	}
	if err := os.Chmod(filepath.Dir(socket), 0); err != nil {
		t.Error(err)
	}
}

func notOursSays() string {
	if os.Geteuid() == 0 {
		return "uid 65533 answers in "
	}
	return "no permission to reach the server in "
}
