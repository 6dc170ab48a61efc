package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trustcast/trustcast/internal/foreign"
)

// findProcess finds the program's process. With several it is the one of Docker's own
// pid file, or the oldest.
func (e *exam) findProcess(program string) engine {
	dirs, err := filepath.Glob(e.at("/proc/[0-9]*"))
	if err != nil {
		return engine{}
	}
	first, _, _ := foreign.ReadFile(e.at("/var/run/docker.pid")) // nil for none
	slices.SortFunc(dirs, func(a, b string) int {
		rank := func(dir string) int {
			pid, _ := strconv.Atoi(filepath.Base(dir)) // the pattern lets hardly anything else through
			if strconv.Itoa(pid) == strings.TrimSpace(string(first)) {
				return 0
			}
			return pid
		}
		return cmp.Compare(rank(a), rank(b))
	})
	for _, dir := range dirs {
		if d, ok := e.process(dir, program); ok {
			return d
		}
	}
	return engine{}
}

// process is the engine whose process has this directory in /proc, if it is believed to
// be one.
func (e *exam) process(dir, program string) (d engine, ok bool) {
	if e.Root == "" && !isRoots(dir) {
		return d, false // and nothing more of it is read
	}
	// A process can say of any part of its memory that it is its command line.
	raw, _, err := foreign.ReadFile(filepath.Join(dir, "cmdline"))
	args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	if err != nil || filepath.Base(args[0]) != program || !e.near(dir) {
		return d, false
	}
	exe, err := os.Open(filepath.Join(dir, "exe")) // held, so that it is what is looked at and run
	if err == nil {
		defer func() { _ = exe.Close() }() // read-only
	}
	seen := err == nil || os.Geteuid() == 0 // without root it is not; then nothing of it is run
	if e.Root == "" && seen && !genuine(dir, program, exe) {
		return d, false
	}
	d = engine{running: true, args: args[1:]}
	env, _, err := foreign.ReadFile(filepath.Join(dir, "environ"))
	d.hidden = errors.Is(err, fs.ErrPermission)
	d.env = strings.Split(strings.TrimRight(string(env), "\x00"), "\x00")
	if program == "dockerd" && e.Root == "" {
		d.major = version(dir, program, exe)
	}
	return d, true
}

// near says whether a process is in the namespaces of who asks: others are in
// containers, or are another host's in a test. Without root some cannot be seen.
func (e *exam) near(process string) bool {
	for _, space := range []string{"net", "pid", "user"} {
		own, err := os.Readlink(e.at(filepath.Join("/proc/self/ns", space)))
		if err != nil {
			continue
		}
		if its, err := os.Readlink(filepath.Join(process, "ns", space)); err == nil && its != own {
			return false
		}
	}
	return true
}

// isRoots says whether a process is root's altogether. One that somebody started from
// a set-uid program has root's effective ID, and a command line of that somebody.
func isRoots(process string) bool {
	status, _, err := foreign.ReadFile(filepath.Join(process, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			return slices.Equal(strings.Fields(ids), []string{"0", "0", "0", "0"})
		}
	}
	return false
}

// genuine says whether a process runs the program, from root's file: its command line
// is whatever who started it liked.
func genuine(process, program string, exe *os.File) bool {
	path, err := os.Readlink(filepath.Join(process, "exe"))
	if exe == nil || err != nil || filepath.Base(strings.TrimSuffix(path, " (deleted)")) != program {
		return false
	}
	info, err := exe.Stat()
	return err == nil && onlyRoots(info)
}

// onlyRoots: nobody but root can have written the program, and whoever starts it runs
// it with rights of their own.
func onlyRoots(info fs.FileInfo) bool {
	uid, known := ownerOf(info)
	return known && uid == 0 && info.Mode().IsRegular() && info.Mode()&(0o022|fs.ModeSetuid|fs.ModeSetgid) == 0
}

// version is the first number of a program's version, 0 when it is unknown. It runs the
// file of the process, if that is this host's and no container's; without root, which
// cannot see it, the one that packages install. What its command line names is never run.
func version(process, program string, exe *os.File) int {
	if exe != nil {
		path, err := os.Readlink(filepath.Join(process, "exe"))
		if err != nil {
			return 0
		}
		here, err := os.Stat(path)
		its, itsErr := exe.Stat()
		if err != nil || itsErr != nil || !os.SameFile(here, its) {
			return 0
		}
		return ask(exe)
	}
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/local/bin"} {
		file, err := os.Open(filepath.Join(dir, program))
		if err != nil {
			continue
		}
		defer func() { _ = file.Close() }() // read-only
		if info, err := file.Stat(); err == nil && onlyRoots(info) {
			return ask(file)
		}
	}
	return 0
}

// ask runs an open program for its version, with nothing of this process.
func ask(program *os.File) int {
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/fd/3", "--version")
	cmd.ExtraFiles, cmd.Env, cmd.Dir, cmd.WaitDelay = []*os.File{program}, []string{}, "/", time.Second
	out, err := cmd.Output()
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(out), "version ")
	number, _, _ := strings.Cut(after, ".")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return n
}
