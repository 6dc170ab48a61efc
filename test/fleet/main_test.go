//go:build linux

package fleet_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestMain is also the main of the reaper, this program started once more to
// clean up after the tests.
func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(reaperEnv)); err == nil {
		os.Exit(reap(n, os.Stdin))
	}
	if pid, err := strconv.Atoi(os.Getenv(awaitEnv)); err == nil {
		await(pid)
		os.Exit(1)
	}
	if why := missing(); why != "" && os.Getenv(requireEnv) == "1" && os.Getenv("TRUSTCAST_FLEET") == "1" {
		fmt.Fprintf(os.Stderr, "%s=1 is set, and nothing can run here: %s\n", requireEnv, why)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// requireEnv turns skips of everything into a failure: continuous integration has it all.
const requireEnv = "TRUSTCAST_REQUIRE_DOCKER"

// missing says why the fleet cannot run here, or "".
func missing() string {
	if os.Getenv("TRUSTCAST_FLEET") != "1" {
		return "TRUSTCAST_FLEET=1 is not set (make fleet-test sets it)"
	}
	if os.Geteuid() != 0 {
		return "needs root for network namespaces and Docker engines"
	}
	var absent []string
	for _, tool := range []string{"dockerd", "containerd", "docker", "ip", "iptables", "nsenter", "unshare", "mount", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			absent = append(absent, tool)
		}
	}
	if len(absent) > 0 {
		return "not installed: " + strings.Join(absent, ", ")
	}
	if _, err := command("unshare", "--net", "--mount", "true"); err != nil {
		return "may not make namespaces: " + err.Error()
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || !strings.Contains(string(mounts), " cgroup") {
		return "no cgroups are mounted, and dockerd needs them"
	}
	return ""
}

// onInterrupt leaves everything to the reaper when the test is interrupted, and
// waits for it. This process turns into one that only waits: the test must not
// make anything behind the reaper's back.
func onInterrupt(reaper int) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-signals
		fmt.Fprintf(os.Stderr, "fleet: %v: cleaning up\n", s)
		err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), fmt.Sprintf("%s=%d", awaitEnv, reaper)))
		fmt.Fprintf(os.Stderr, "fleet: %v\n", err)
		os.Exit(1)
	}()
}

// await waits for the reaper, a child of this process.
func await(reaper int) {
	if p, err := os.FindProcess(reaper); err == nil {
		_, _ = p.Wait()
	}
}
