package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing"
	"time"
)

// root holds everything that is built and written.
var root string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	sweep, err := makeRoot()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	before := runtime.NumGoroutine()
	code := m.Run()
	if err := errors.Join(noneLeft(before), sweep()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// makeRoot makes root, and a process that removes it when sweep is called or
// this process ends, however it does. The programs end with it too.
func makeRoot() (sweep func() error, err error) {
	if root, err = os.MkdirTemp("", "tc-"); err != nil { // short: a socket's path is
		return nil, err
	}
	cmd := exec.Command("/bin/sh", "-c", `cat; for i in 1 2 3 4 5 6 7 8 9; do rm -rf "$0" && exit; sleep 1; done`, root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error { return errors.Join(alive.Close(), cmd.Wait()) }, nil
}

// scratch makes a directory that is gone when all tests have ended.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(root, "")
	must(t, err)
	return dir
}

// noneLeft waits for the goroutines of the tests to end.
func noneLeft(before int) error {
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(poll) {
		if time.Now().After(deadline) {
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			return fmt.Errorf("%d goroutines are left, %d were there at the start", runtime.NumGoroutine(), before)
		}
	}
	return nil
}

// crashing are the programs that can kill themselves, shipped those that
// cannot.
var (
	crashing = sync.OnceValues(func() (string, error) { return build("crashing", "-tags", "crashpoints") })
	shipped  = sync.OnceValues(func() (string, error) { return build("shipped") })
)

func build(name string, flags ...string) (string, error) {
	dir := filepath.Join(root, name)
	args := append(append([]string{"build"}, flags...), "-o", dir+string(filepath.Separator), "./cmd/...")
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}
