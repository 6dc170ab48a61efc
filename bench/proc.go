package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// tick of the kernel's accounts of processor time; USER_HZ is 100 on every Linux.
const userTick = 10 * time.Millisecond

// cpu is the processor time that a process has used, and its children that have ended.
func (p *process) cpu() (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("%s ended: %w\n%s", p.name, err, p.said())
	}
	// Past the name in brackets, which may hold anything.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var total time.Duration
	for _, i := range []int{11, 12} { // utime, stime: fields 14 and 15
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n) * userTick
	}
	return total, nil
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
