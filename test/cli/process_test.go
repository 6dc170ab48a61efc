package cli_test

import (
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

type processesKey struct{}

// process is a program in the background.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended; then err is set
	err  error
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
	"TRUSTCAST_DOCKER_CERTS_DIR", "TRUSTCAST_JOIN", "TRUSTCAST_DEADLINE", "TRUSTCAST_CONFIG", "TRUSTCAST_ALIAS", "TRUSTCAST_REPLICAS", "TRUSTCAST_ROTATE_WINDOW", "TRUSTCAST_PPROF",
	"TRUSTCAST_DOMIAN", "TRUSTCAST_GOSIP_LISTEN", "TRUSTCAST_SERVICE_PORT", "TRUSTCAST_TOKEN_FILE",
	"DOCKER_HOST",
	"REGISTRY_CATALOG_MAXENTRIES", "REGISTRY_LOG_LEVEL", "REGISTRY_AUTH_HTPASSWD_PATH", // distribution's own
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

// terminate NAME: SIGTERM; it must end with exit code 0.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args, "terminate NAME", 1)
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
