package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is the processor time that a process has used, to the nanosecond: an idle one
// uses less than a tick of /proc/PID/stat in a second.
func (p *process) cpu() (time.Duration, error) {
	const ofProcess = 2 // CPUCLOCK_SCHED; what clock_getcpuclockid(3) makes of a process's ID
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|ofProcess), &t); err != nil { //nolint:gosec // process IDs are small
		return 0, fmt.Errorf("processor time of %s: %w\n%s", p.name, err, p.said())
	}
	return time.Duration(t.Nano()), nil
}

// memory is a process's, in bytes, as the kernel counts.
type memory struct{ resident, anonymous float64 }

func (p *process) memory() (memory, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return memory{}, fmt.Errorf("%s ended: %w\n%s", p.name, err, p.said())
	}
	var m memory
	for field, value := range map[string]*float64{"VmRSS": &m.resident, "RssAnon": &m.anonymous} {
		found := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(raw)
		if found == nil {
			return memory{}, fmt.Errorf("%s has no %s: it has ended\n%s", p.name, field, p.said())
		}
		n, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			return memory{}, err
		}
		*value = n * 1024
	}
	return m, nil
}
