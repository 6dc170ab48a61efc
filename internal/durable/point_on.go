//go:build crashpoints

package durable

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

// passed counts the points that this process has reached.
var passed atomic.Int64

// reached numbers each point, writes it to the file that TRUSTCAST_CRASH_LOG
// names, and kills the process with SIGKILL at number TRUSTCAST_CRASH_AT. Only
// test binaries are built with it.
func reached(p point, path string) {
	n := passed.Add(1)
	if log := os.Getenv("TRUSTCAST_CRASH_LOG"); log != "" {
		f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, _ = fmt.Fprintf(f, "%d %s %s\n", n, p, path)
			_ = f.Close()
		}
	}
	at, err := strconv.ParseInt(os.Getenv("TRUSTCAST_CRASH_AT"), 10, 64)
	if err == nil && n == at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal ends the process; no further step may run
	}
}
