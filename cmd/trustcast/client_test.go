package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// stranger is a user that is neither root nor whoever runs tests.
const stranger = 65533

// listenAs listens at a Unix socket as another user.
func listenAs(t *testing.T, path string, uid uintptr) net.Listener {
	t.Helper()
	var lis net.Listener
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: a thread of another user is of no use to others
		const unchanged = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, unchanged, uid, unchanged); errno != 0 {
			err = errno
			return
		}
		lis, err = net.Listen("unix", path)
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	return lis
}

// adminSocket is where the server of a data directory is asked. Others may come and
// listen there too.
func adminSocket(t *testing.T) (dir, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tct") // short: a socket is below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	state := filepath.Join(dir, "state")
	if err := errors.Join(os.Mkdir(state, 0o777), os.Chmod(state, 0o777), os.Chmod(dir, 0o711)); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(state, "admin.sock")
}

func listenAt(t *testing.T, socket string) net.Listener {
	lis, err := net.Listen("unix", socket)
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { _ = lis.Close() })
	return lis
}

// serveAdmin serves until Stop, or until the test ends.
func serveAdmin(t *testing.T, lis net.Listener, admin pb.AdminServiceServer) *grpc.Server {
	s := grpc.NewServer()
	t.Cleanup(s.Stop)
	pb.RegisterAdminServiceServer(s, admin)
	go func() { _ = s.Serve(lis) }() // ends with Stop, and says that it did
	return s
}

// TestSomebodyElsesSocket: what answers is asked who it is before it is told a password
// or a token, also by root.
func TestSomebodyElsesSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can listen as somebody else")
	}
	dir, socket := adminSocket(t)
	lis := listenAs(t, socket, stranger)
	var told []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			part := make([]byte, 1000)
			n, _ := conn.Read(part) // its end may be a reset
			told = append(told, part[:n]...)
			_ = conn.Close()
		}
	}()
	for _, args := range [][]string{
		{"user", "add", "ann", "--password-stdin"}, {"token", "create"}, {"status"}, {"backup", filepath.Join(dir, "b.tar")},
	} {
		var out bytes.Buffer
		err := run(t.Context(), append(args, "--data-dir", dir), func(string) string { return "" }, strings.NewReader("secret-word"), &out, &out)
		if cli.Code(err) != cli.Unreachable || !strings.Contains(err.Error(), "uid 65533 answers in "+dir+", who is neither root nor you") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if entries, err := filepath.Glob(filepath.Join(dir, "b.tar*")); err != nil || len(entries) > 0 {
		t.Errorf("a backup was made: %v, %v", entries, err)
	}
	_ = lis.Close()
	<-done
	if len(told) > 0 {
		t.Errorf("it was told %q", told)
	}
}

// late is a server whose answers all come too late.
type late struct {
	pb.UnimplementedAdminServiceServer
}

func (late) ChangeRegistry(*pb.ChangeRegistryRequest, grpc.ServerStreamingServer[pb.ChangeRegistryResponse]) error {
	return status.Error(codes.DeadlineExceeded, "2 requests are left")
}

func (late) GetRegistry(context.Context, *pb.GetRegistryRequest) (*pb.GetRegistryResponse, error) {
	return nil, status.Error(codes.DeadlineExceeded, "context deadline exceeded")
}

// TestWhoseLimit: the limit of a call is told where there is one; else the server says
// what took too long.
func TestWhoseLimit(t *testing.T) {
	dir, socket := adminSocket(t)
	serveAdmin(t, listenAt(t, socket), late{})
	for _, c := range []struct {
		verb string
		code int
		want string
	}{
		{"stop", cli.Failed, "2 requests are left"},
		{"status", cli.Unreachable, "the server did not answer within 1m0s; see its log"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), []string{"registry", c.verb, "--data-dir", dir}, func(string) string { return "" }, strings.NewReader(""), &out, &out)
		if cli.Code(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: exit code %d, %v", c.verb, cli.Code(err), err)
		}
	}
}

// TestNoServerBehindTheSocket: what takes connections and is no server that answers is
// told in our words, whatever was asked.
func TestNoServerBehindTheSocket(t *testing.T) {
	dir, socket := adminSocket(t)
	lis := listenAt(t, socket)
	if lis == nil {
		return
	}
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	for _, args := range [][]string{{"registry", "status"}, {"registry", "pause"}, {"status", "--wait"}} {
		var out bytes.Buffer
		err := run(t.Context(), append(args, "--data-dir", dir), func(string) string { return "" }, strings.NewReader(""), &out, &out)
		if cli.Code(err) != cli.Unreachable || !strings.Contains(err.Error(), "the server does not answer, or ended before it did; see whether it runs") {
			t.Errorf("%v: exit code %d, %v", args, cli.Code(err), err)
		}
	}
}
