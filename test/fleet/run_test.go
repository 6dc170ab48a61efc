//go:build linux

package fleet_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	// reaperEnv makes the test program the reaper of the run it names.
	reaperEnv = "FLEETTEST_REAPER"
	// awaitEnv makes the test program wait for the reaper of that number.
	awaitEnv = "FLEETTEST_AWAIT"
	// markEnv is in the environment of every process of a run, and children
	// inherit it: so the reaper finds all of them and no others.
	markEnv = "FLEETTEST_RUN"
	// tempDir is fixed, not $TMPDIR: later runs look here for dead ones, and
	// socket paths may have 107 bytes only.
	tempDir = "/tmp"
)

// run is one run of the fleet. Everything it makes on the machine carries its
// name, tcf<n>, and lies in the subnet 10.231.<n>.0/24 or below dir.
type run struct {
	n   int
	dir string

	reaper *exec.Cmd
	alive  io.WriteCloser // the reaper starts when this closes
	ended  sync.Once
	endErr error
}

func runName(n int) string { return "tcf" + strconv.Itoa(n) }
func runDir(n int) string  { return filepath.Join(tempDir, runName(n)) }

func (r *run) name() string         { return runName(r.n) }
func (r *run) addr(last int) string { return fmt.Sprintf("10.231.%d.%d", r.n, last) }
func (r *run) path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

// numbers is held while a number is taken or given back: between the end of a run's
// directory and the look at what it left, its number is nobody else's.
var numbers sync.Mutex

// claim removes what dead runs left, takes the first free number and starts
// the reaper that cleans up when this process ends, however it ends.
func claim() (*run, error) {
	numbers.Lock()
	defer numbers.Unlock()
	if err := sweepDead(); err != nil {
		return nil, fmt.Errorf("remove what an earlier run left: %w", err)
	}
	r, err := claimNumber()
	if err != nil {
		return nil, err
	}
	if err := r.startReaper(); err != nil {
		return nil, errors.Join(err, sweep(r.n))
	}
	return r, nil
}

// claimNumber takes a number by renaming a directory that already names its
// owner: the rename fails when another run has the number.
func claimNumber() (*run, error) {
	tmp, err := os.MkdirTemp(tempDir, "tcf-new-")
	if err != nil {
		return nil, err
	}
	owner := fmt.Sprintf("%d %s\n", os.Getpid(), startTime(os.Getpid()))
	if err := os.WriteFile(filepath.Join(tmp, "owner"), []byte(owner), 0o600); err != nil {
		return nil, err
	}
	for n := 1; n < 255; n++ {
		if !subnetFree(n) {
			continue
		}
		if err := os.Rename(tmp, runDir(n)); err == nil {
			return &run{n: n, dir: runDir(n)}, nil
		}
	}
	return nil, errors.Join(errors.New("no free subnet 10.231.N.0/24 for the fleet"), os.RemoveAll(tmp))
}

func subnetFree(n int) bool {
	subnet := netip.MustParsePrefix(fmt.Sprintf("10.231.%d.0/24", n))
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Overlaps(subnet) {
			return false
		}
	}
	return true
}

func (r *run) startReaper() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r.reaper = exec.Command(self)
	r.reaper.Env = append(os.Environ(), reaperEnv+"="+strconv.Itoa(r.n))
	r.reaper.Stderr = os.Stderr
	// A session of its own: Ctrl-C on the terminal must not reach it.
	r.reaper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if r.alive, err = r.reaper.StdinPipe(); err != nil {
		return err
	}
	return r.reaper.Start()
}

// end has the reaper remove everything and says what is left.
func (r *run) end() error {
	r.ended.Do(func() {
		numbers.Lock()
		defer numbers.Unlock()
		_ = r.alive.Close()
		err := r.reaper.Wait()
		if err != nil {
			err = fmt.Errorf("reaper: %w", err)
		}
		if left := leftovers(r.n); len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("left on this machine: %s", strings.Join(left, "; ")))
		}
		r.endErr = err
	})
	return r.endErr
}

// reap waits for the end of alive and removes all that run n made.
func reap(n int, alive io.Reader) int {
	_, _ = io.Copy(io.Discard, alive)
	if err := sweep(n); err != nil {
		fmt.Fprintf(os.Stderr, "fleet: clean up %s: %v\n", runName(n), err)
		return 1
	}
	return 0
}

var runDirPattern = regexp.MustCompile(`^tcf(\d{1,3})$`)

// sweepDead removes what runs left whose owner is dead, for the case that the
// reaper was killed as well.
func sweepDead() error {
	entries, err := os.ReadDir(tempDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		m := runDirPattern.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || ownerAlive(n) {
			continue
		}
		// Its reaper may be at work on the same things just now.
		if err := sweep(n); err != nil && len(leftovers(n)) > 0 {
			return err
		}
	}
	return nil
}

func ownerAlive(n int) bool {
	data, err := os.ReadFile(filepath.Join(runDir(n), "owner"))
	if err != nil {
		return false
	}
	pid, start, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	p, err := strconv.Atoi(pid)
	return err == nil && startTime(p) == start
}

// startTime tells processes with the same number apart: field 22 of
// /proc/PID/stat, or "" when there is none.
func startTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The command name, in parentheses, may contain blanks.
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}
