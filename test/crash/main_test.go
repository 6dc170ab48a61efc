package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"testing"
	"time"
)

// programs is the directory of everything that is built, once for all tests.
var programs string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tc-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs = dir
	before := runtime.NumGoroutine()
	code := m.Run()
	if err := noneLeft(before); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
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
	dir := filepath.Join(programs, name)
	args := append(append([]string{"build"}, flags...), "-o", dir+string(filepath.Separator), "./cmd/...")
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}
