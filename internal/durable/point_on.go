//go:build crashpoints

package durable

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
)

var (
	mu     sync.Mutex
	passed int                // points that this process has reached
	times  = map[string]int{} // how often each, by file and point
)

// reached numbers and names each point and writes both to the file that
// TRUSTCAST_CRASH_LOG names. At the point whose number or name is
// TRUSTCAST_CRASH_AT it kills the process with SIGKILL. Only test binaries are
// built with it.
func reached(p point, path string) {
	mu.Lock()
	defer mu.Unlock()
	passed++
	each := fileOf(path) + " " + string(p)
	times[each]++
	number, name := strconv.Itoa(passed), fmt.Sprintf("%s-%d-%s", fileOf(path), times[each], p)
	if log := os.Getenv("TRUSTCAST_CRASH_LOG"); log != "" {
		f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, _ = fmt.Fprintf(f, "%s %s %s\n", number, name, path)
			_ = f.Close()
		}
	}
	if at := os.Getenv("TRUSTCAST_CRASH_AT"); at == number || at == name {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal ends the process; no further step may run
	}
}

// random is the part of a file name that differs from run to run.
var random = regexp.MustCompile(`^[0-9a-f]{12,}\.`)

// fileOf names a file the same in each run: one with a random name by its
// directory.
func fileOf(path string) string {
	if base := filepath.Base(path); !random.MatchString(base) {
		return base
	}
	return filepath.Base(filepath.Dir(path))
}
