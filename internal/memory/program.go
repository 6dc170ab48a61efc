package memory

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// segment is a part of the address space.
type segment struct{ start, end uintptr }

// unmap takes the program's code and constants out of the process's memory. What is
// used comes back by itself from the system's cache of the file, sixteen pages at a
// time, which takes less than a millisecond for all that a quiet server needs.
func unmap() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	all, err := untouched(f, program)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	var errs []error
	for _, s := range all {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, s.start, s.end-s.start, unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, fmt.Errorf("madvise: %w", errno))
		}
	}
	return errors.Join(errs...)
}

// untouched lists what is mapped of a file and is in memory as it is in the file. A
// page that differs would be lost: data, and code with a breakpoint of a debugger or
// of a tracer in it.
func untouched(smaps io.Reader, file string) ([]segment, error) {
	var found []segment
	var at segment
	candidate := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), " ")
		if !strings.HasSuffix(field, ":") { // the head of a mapping
			var err error
			if at, err = parseSegment(field); err != nil {
				return nil, err
			}
			candidate = mapsRead(value, file)
			continue
		}
		if candidate && field == "Anonymous:" && strings.TrimSpace(value) == "0 kB" {
			found = append(found, at)
		}
	}
	return found, lines.Err()
}

// mapsRead says whether the rest of a mapping's head is of a file, and it is not
// writable: "r-xp 00000000 fe:00 4711   /usr/bin/trustcast".
func mapsRead(head, file string) bool {
	permissions, _, _ := strings.Cut(head, " ")
	return !strings.Contains(permissions, "w") && strings.HasSuffix(head, " "+file)
}

func parseSegment(addresses string) (segment, error) {
	from, to, _ := strings.Cut(addresses, "-")
	start, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return segment{}, err
	}
	end, err := strconv.ParseUint(to, 16, 64)
	if err != nil {
		return segment{}, err
	}
	return segment{uintptr(start), uintptr(end)}, nil
}
