package doctor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestStrangersAreNoEngine: what somebody calls dockerd is neither believed nor run.
func TestStrangersAreNoEngine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a program as somebody else")
	}
	dir := t.TempDir()
	for at := dir; strings.HasPrefix(at, os.TempDir()+"/"); at = filepath.Dir(at) {
		must(t, os.Chmod(at, 0o755)) // that of a test is closed to others
	}
	sleep, err := os.ReadFile("/bin/sleep")
	must(t, err)
	program := func(place string, owner int, mode os.FileMode) string {
		path := filepath.Join(dir, place, "dockerd")
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, sleep, 0o755))
		must(t, os.Chown(path, owner, 0))
		must(t, os.Chmod(path, mode))
		return path
	}
	ran := filepath.Join(dir, "ran")
	script := filepath.Join(dir, "theirs/dockerd")
	must(t, os.MkdirAll(filepath.Dir(script), 0o755))
	must(t, os.WriteFile(script, []byte("#!/bin/sh\ntouch "+ran+"\n"), 0o755)) //nolint:gosec // it is to be run
	for what, c := range map[string]struct {
		path, arg0 string
		uid        uint32
		want       bool
	}{
		"root's (control)":         {program("good", 0, 0o755), "dockerd", 0, true},
		"a user's process":         {program("good", 0, 0o755), "dockerd", 65534, false},
		"another program":          {"/bin/sleep", "dockerd", 0, false},
		"a file of a user":         {program("owned", 65534, 0o755), "dockerd", 0, false},
		"a file open to others":    {program("open", 0, 0o777), "dockerd", 0, false},
		"a set-uid one":            {program("setuid", 0, os.ModeSetuid|0o755), script, 65534, false},
		"a set-uid one, by root":   {program("setuid", 0, os.ModeSetuid|0o755), script, 0, false},
		"a script on its command":  {program("good", 0, 0o755), script, 0, true},
		"a stranger of this name ": {"/bin/sleep", script, 0, false},
	} {
		cmd := exec.CommandContext(t.Context(), c.path, "1000")
		cmd.Args[0] = c.arg0
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}
		must(t, cmd.Start())
		process := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
		await(t, process+" has a command line", func() bool { // a new program has none for a moment
			line, err := os.ReadFile(filepath.Join(process, "cmdline"))
			return err == nil && len(line) > 0
		})
		e := &exam{Config: Config{}.withDefaults()}
		if _, is := e.process(process, "dockerd"); is != c.want {
			t.Errorf("%s is believed: %v", what, is)
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the script was run")
	}
}

// TestEndlessCommandLine: a process can make gigabytes of nothing its command line.
func TestEndlessCommandLine(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cmdline", "environ"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("dockerd\x00--data-root=/data\x00"), 0o600))
		must(t, os.Truncate(filepath.Join(dir, name), 1<<42))
	}
	e := &exam{Config: Config{Root: dir}.withDefaults()}
	if d, is := e.process(dir, "dockerd"); !is || d.flag("data-root") != "/data" {
		t.Errorf("%v: %.100q", is, d.args)
	}
}

// TestVersionIsAsked of the open file, which gets nothing of this process.
func TestVersionIsAsked(t *testing.T) {
	path, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skip("needs dockerd")
	}
	file, err := os.Open(path)
	must(t, err)
	defer func() { must(t, file.Close()) }()
	if n := ask(file); n == 0 {
		t.Errorf("%s has no version", path)
	}
}

func TestAssignments(t *testing.T) {
	for in, want := range map[string][]string{
		`A=b`: {"A=b"}, `A=b  C=d`: {"A=b", "C=d"}, `"A=b c" 'D=e f' G=h`: {"A=b c", "D=e f", "G=h"}, ``: nil, `"A=b`: {"A=b"},
	} {
		if diff := cmp.Diff(want, assignments(in)); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
}
