package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

func (f *fakeServer) Backup(_ *pb.BackupRequest, stream grpc.ServerStreamingServer[pb.BackupResponse]) error {
	return stream.Send(&pb.BackupResponse{Chunk: []byte("of a server")})
}

// remarks closes said with the first one.
type remarks struct {
	bytes.Buffer
	said  chan struct{}
	first sync.Once
}

func (r *remarks) Write(p []byte) (int, error) {
	r.first.Do(func() { close(r.said) })
	return r.Buffer.Write(p)
}

// TestBackupOfAServerThatStarts: a server that has the directory and cannot be asked
// yet, or any more, is waited for.
func TestBackupOfAServerThatStarts(t *testing.T) {
	dir, socket := adminSocket(t)
	release := held(t, dir)
	defer release()
	stderr := &remarks{said: make(chan struct{})}
	when(t, stderr.said, func() { serveAdmin(t, listenAt(t, socket), &fakeServer{}) })
	target := filepath.Join(t.TempDir(), "b.tar")
	if err := run(t.Context(), []string{"backup", target, "--data-dir", dir}, func(string) string { return "" }, strings.NewReader(""), io.Discard, stderr); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(target); err != nil || string(got) != "of a server" {
		t.Errorf("%q, %v", got, err)
	}
	if said := strings.Count(stderr.String(), "no server answers there; waiting"); said != 1 {
		t.Errorf("that a server is waited for was said %d times:\n%s", said, stderr.String())
	}
}

// TestBackupBesideAServerThatNeverAnswers: the wait ends, with what stands in the way or
// with a backup of the directory once that is free.
func TestBackupBesideAServerThatNeverAnswers(t *testing.T) {
	dir, _ := adminSocket(t)
	release := held(t, dir)
	defer release()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	back := func(frees func()) (n int, took time.Duration, err error) {
		var out bytes.Buffer
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			timer := time.AfterFunc(comeBack/2, frees)
			defer timer.Stop()
			err = (&app{dataDir: dir, stderr: io.Discard}).fetchBackup(t.Context(), backupFlags{}, &out)
			took = time.Since(began)
		})
		return out.Len(), took, err
	}
	if n, took, err := back(func() {}); !errors.Is(err, server.ErrInUse) || n > 0 || took < comeBack {
		t.Errorf("in use for good: %d bytes after %s, %v", n, took, err)
	}
	if n, took, err := back(release); err != nil || n == 0 || took < comeBack {
		t.Errorf("stopped for good: %d bytes after %s, %v", n, took, err)
	}
}

// held makes a registry and has its directory, as a server does.
func held(t *testing.T, dir string) (release func()) {
	t.Helper()
	if err := os.Chmod(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Init(t.Context(), server.InitConfig{DataDir: dir, Domain: "registry.test"}); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "state", "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	return func() { _ = lock.Close() }
}
