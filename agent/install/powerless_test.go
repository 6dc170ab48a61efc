package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestLinkThroughProcesses: a link in a home leads through no other user's process to
// what its user closed to others.
func TestLinkThroughProcesses(t *testing.T) {
	s, home := alice(t)
	closed := s.path("home/bob")
	open := filepath.Join(closed, "within")
	must(t, os.MkdirAll(open, 0o777))
	must(t, os.Chmod(open, 0o777))
	must(t, os.Chown(open, nobody-1, nobody-1))
	must(t, os.Chown(closed, nobody-1, nobody-1))
	must(t, os.Chmod(closed, 0o700))
	bobs := exec.CommandContext(t.Context(), "sleep", "1000")
	bobs.Dir = open
	bobs.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody - 1, Gid: nobody - 1}}
	must(t, bobs.Start())
	t.Cleanup(func() {
		must(t, bobs.Process.Kill())
		_ = bobs.Wait() // it was killed
	})
	within := fmt.Sprintf("/proc/%d/cwd", bobs.Process.Pid)
	for begin := time.Now(); ; { // its directory is that of this test's process at first
		if at, err := os.Readlink(within); err == nil && at == open {
			break
		} else if time.Since(begin) > 10*time.Second {
			t.Fatalf("bob's process is in %q (%v)", at, err)
		}
	}
	must(t, os.MkdirAll(filepath.Join(home, ".config/docker"), 0o700))
	must(t, os.Symlink(within, filepath.Join(home, ".config/docker/certs.d")))
	theirs(t, home)

	h, _ := installed(t, s, Auto)
	if entries, err := os.ReadDir(open); err != nil || len(entries) > 0 {
		t.Errorf("the agent wrote for alice into bob's closed home: %v (%v)", entries, err)
	}
	if f := alices(t, h, Owned{}); f.Problem == "" {
		t.Errorf("not seen: %+v", f)
	}
	err := As(nobody, nobody, func() error { _, err := os.ReadDir(within); return err })
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("bob's directory is open to alice: %v", err)
	}
	must(t, As(nobody-1, nobody-1, func() error { _, err := os.ReadDir(within); return err })) // control
}
