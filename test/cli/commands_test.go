package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Bounds on waiting; a healthy run needs a fraction of a second of them.
const (
	patience = 60 * time.Second
	poll     = 50 * time.Millisecond
	// grace is how long a process may take to end gracefully when a script is
	// over, before it is killed.
	grace = 10 * time.Second
)

type processesKey struct{}

// process is a program in the background.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended; then err is set
	err  error
}

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"start": start, "listening": listening, "stop": stop, "interrupt": interrupt, "signal": sendSignal, "exits": exits,
		"code": code, "waitfor": waitfor, "waitjson": waitjson, "waitlog": waitlog, "freeport": freeport, "capture": capture, "field": field, "json": jsonCheck, "mode": mode, "tty": tty,
	}
}

// start NAME PROGRAM [ARG...]: runs it in the background; stdout and stderr go
// to $WORK/NAME.out and NAME.log. It is ended with the script.
func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME PROGRAM [ARG...]")
	}
	cmd := command(ts, args[1:])
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdout, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	stderr, err := os.Create(ts.MkAbs(args[0] + ".log"))
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	ts.Check(cmd.Start())
	p := &process{cmd: cmd, log: stderr.Name(), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		_, _ = stdout.Close(), stderr.Close()
		close(p.done)
	}()
	processes(ts)[args[0]] = p
	ts.Defer(p.end)
}

func processes(ts *testscript.TestScript) map[string]*process {
	return ts.Value(processesKey{}).(map[string]*process)
}

func named(ts *testscript.TestScript, args []string, usage string, n int) *process {
	if len(args) != n {
		ts.Fatalf("usage: %s", usage)
	}
	p := processes(ts)[args[0]]
	if p == nil {
		ts.Fatalf("nothing was started as %s", args[0])
	}
	return p
}

// end ends the process group, gracefully if it can.
func (p *process) end() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) // a stopped one ends too
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// await waits for the end and returns the exit code.
func (p *process) await(ts *testscript.TestScript) int {
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("it did not end; its log:\n%s", ts.ReadFile(p.log))
	}
	return p.cmd.ProcessState.ExitCode()
}

// command is a program of the script's PATH, in its directory and environment.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	path := args[0]
	if candidate := filepath.Join(programs, path); exists(candidate) {
		path = candidate
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = environ(ts)
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// environ is the script's environment; testscript has no accessor for all of it.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range append([]string{"PATH", "HOME", "TMPDIR", "WORK", "TERM", "NO_COLOR"}, trustcastVariables...) {
		if value := ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

var trustcastVariables = []string{
	"TRUSTCAST_DATA_DIR", "TRUSTCAST_LISTEN", "TRUSTCAST_GRPC_LISTEN", "TRUSTCAST_GOSSIP_LISTEN", "TRUSTCAST_HTTP_LISTEN",
	"TRUSTCAST_TICK", "TRUSTCAST_GONE_AFTER", "TRUSTCAST_DOMAIN", "TRUSTCAST_ADVERTISE", "TRUSTCAST_OUTPUT", "TRUSTCAST_TOKEN", "TRUSTCAST_NAME",
	"TRUSTCAST_DOCKER_CERTS_DIR", "TRUSTCAST_JOIN", "TRUSTCAST_DEADLINE",
}

var listenLine = regexp.MustCompile(`msg=listening what=(\w+) address=(\S+)`)

// listening NAME: waits until the server serves, then sets REGISTRY, GRPC,
// GOSSIP and HTTP to the addresses that its log names.
func listening(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args, "listening NAME", 1)
	log := p.awaitLog(ts, regexp.MustCompile(`msg=serving`))
	for _, m := range listenLine.FindAllStringSubmatch(log, -1) {
		ts.Setenv(strings.ToUpper(m[1]), m[2])
	}
	if neg || ts.Getenv("GRPC") == "" {
		ts.Fatalf("no address of the grpc port in the log:\n%s", log)
	}
}

// waitlog NAME PATTERN: waits until a line of the program's log matches.
func waitlog(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args, "waitlog NAME PATTERN", 2)
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if neg {
		ts.Fatalf("waitlog cannot be negated")
	}
	p.awaitLog(ts, pattern)
}

func (p *process) awaitLog(ts *testscript.TestScript, pattern *regexp.Regexp) string {
	for deadline := time.Now().Add(patience); ; {
		log := ts.ReadFile(p.log)
		if pattern.MatchString(log) {
			return log
		}
		select {
		case <-p.done:
			ts.Fatalf("it ended (%v) before its log had %s:\n%s", p.err, pattern, ts.ReadFile(p.log))
		case <-time.After(poll):
		}
		if time.Now().After(deadline) {
			ts.Fatalf("its log never had %s:\n%s", pattern, log)
		}
	}
}

// stop NAME: SIGTERM; it must end with exit code 0.
func stop(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args, "stop NAME", 1)
	ts.Check(p.cmd.Process.Signal(syscall.SIGTERM))
	if got := p.await(ts); (got == 0) == neg {
		ts.Fatalf("it ended with exit code %d; its log:\n%s", got, ts.ReadFile(p.log))
	}
}

// interrupt NAME: SIGINT, as Ctrl-C does.
func interrupt(ts *testscript.TestScript, _ bool, args []string) {
	p := named(ts, args, "interrupt NAME", 1)
	ts.Check(p.cmd.Process.Signal(syscall.SIGINT))
}

// signal STOP|CONT|KILL NAME.
func sendSignal(ts *testscript.TestScript, _ bool, args []string) {
	p := named(ts, args[1:], "signal STOP|CONT|KILL NAME", 1)
	ts.Check(p.cmd.Process.Signal(map[string]syscall.Signal{
		"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "KILL": syscall.SIGKILL,
	}[args[0]]))
}

// exits NAME CODE: waits for the end with this exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args, "exits NAME CODE", 2)
	if got := p.await(ts); (strconv.Itoa(got) != args[1]) != neg {
		ts.Fatalf("it ended with exit code %d; its log:\n%s", got, ts.ReadFile(p.log))
	}
}

// code N [<FILE] PROGRAM [ARG...]: the program must end with exit code N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N [<FILE] PROGRAM [ARG...]")
	}
	want, args := args[0], args[1:]
	var stdin []byte
	if file, ok := strings.CutPrefix(args[0], "<"); ok {
		stdin, args = []byte(ts.ReadFile(file)), args[1:]
	}
	got, stdout, stderr := try(ts, stdin, args)
	_, _ = ts.Stdout().Write(stdout)
	_, _ = ts.Stderr().Write(stderr)
	if strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d, want %s\n[stdout]\n%s[stderr]\n%s", got, want, stdout, stderr)
	}
}

func try(ts *testscript.TestScript, stdin []byte, args []string) (code int, stdout, stderr []byte) {
	cmd := command(ts, args)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	ts.Check(cmd.Start())
	bound := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer bound.Stop()
	if err := cmd.Wait(); err != nil {
		if e := new(exec.ExitError); !errors.As(err, &e) {
			ts.Fatalf("%v: %v", args, err)
		}
	}
	return cmd.ProcessState.ExitCode(), out.Bytes(), errs.Bytes()
}

// [!] waitfor PROGRAM [ARG...]: repeats it until it succeeds (fails).
func waitfor(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: waitfor PROGRAM [ARG...]")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(poll) {
		got, stdout, stderr := try(ts, nil, args)
		if (got == 0) != neg {
			_, _ = ts.Stdout().Write(stdout)
			_, _ = ts.Stderr().Write(stderr)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("still exit code %d\n[stdout]\n%s[stderr]\n%s", got, stdout, stderr)
		}
	}
}

// waitjson PATH WANT PROGRAM [ARG...]: repeats it until that value of its
// stdout is WANT, whatever its exit code.
func waitjson(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: waitjson PATH WANT PROGRAM [ARG...]")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(poll) {
		_, stdout, stderr := try(ts, nil, args[2:])
		v, found := lookup(stdout, args[0])
		if found && text(v) == args[1] {
			_, _ = ts.Stdout().Write(stdout)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s is still %s\n[stdout]\n%s[stderr]\n%s", args[0], text(v), stdout, stderr)
		}
	}
}

// freeport VAR...: ports that are free now.
func freeport(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Setenv(name, strconv.Itoa(lis.Addr().(*net.TCPAddr).Port))
		ts.Defer(func() { _ = lis.Close() })
		if !strings.HasPrefix(name, "BUSY") {
			ts.Check(lis.Close())
		}
	}
}

// capture VAR: sets it to the last stdout.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// field PATH VAR: sets it to a value of the last stdout.
func field(ts *testscript.TestScript, _ bool, args []string) {
	v, found := lookup([]byte(ts.ReadFile("stdout")), args[0])
	if !found {
		ts.Fatalf("%s is not there", args[0])
	}
	ts.Setenv(args[1], text(v))
}

// [!] json PATH WANT: a value of the last stdout, like hosts.0.name; hosts.len
// counts. WANT is as Go prints it, null for null; without it the key must be there.
func jsonCheck(ts *testscript.TestScript, neg bool, args []string) {
	v, found := lookup([]byte(ts.ReadFile("stdout")), args[0])
	matches := found && (len(args) == 1 || text(v) == args[1])
	if matches == neg {
		ts.Fatalf("%s is %s (present: %v), want %v", args[0], text(v), found, args[1:])
	}
}

func text(v any) string {
	if v == nil {
		return "null"
	}
	return fmt.Sprint(v)
}

func lookup(data []byte, path string) (v any, found bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // 3, not 3e+00
	if err := dec.Decode(&v); err != nil || path == "." {
		return v, err == nil
	}
	for _, key := range strings.Split(path, ".") {
		if v, found = child(v, key); !found {
			return nil, false
		}
	}
	return v, true
}

func child(v any, key string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		c, ok := v[key]
		return c, ok
	case []any:
		if key == "len" {
			return len(v), true
		}
		i, err := strconv.Atoi(key)
		if err != nil || i >= len(v) {
			return nil, false
		}
		return v[i], true
	}
	return nil, false
}

// mode PERM FILE: the file's permissions, like 600.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	fi, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	if (fi.Mode().Perm() == fs.FileMode(want)) == neg {
		ts.Fatalf("%s has mode %o", args[1], fi.Mode().Perm())
	}
}
