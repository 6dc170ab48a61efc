package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// lab is where experiments run: a directory, programs, and processes that are ended
// after each experiment.
type lab struct {
	dir       string
	rounds    int
	processes []*process
	network   *namespace // where programs run; nil: the machine's
}

func newLab(rounds int) (*lab, error) {
	dir, err := os.MkdirTemp("", "trustcast-bench-")
	if err != nil {
		return nil, err
	}
	return &lab{dir: dir, rounds: rounds}, nil
}

// clear removes the directory.
func (l *lab) clear() error { return errors.Join(l.endAll(), os.RemoveAll(l.dir)) }

// path is one in the lab's directory.
func (l *lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

// endAll ends what the experiment started, all at once: members of gossip take a
// while to say goodbye.
func (l *lab) endAll() error {
	var wg sync.WaitGroup
	failed := make([]error, len(l.processes))
	for i, p := range l.processes {
		wg.Go(func() { failed[i] = p.end() })
	}
	wg.Wait()
	l.processes = nil
	return errors.Join(failed...)
}

// Ours: package and tags.
var sources = map[string]struct{ pkg, tags string }{
	"trustcast":       {"./cmd/trustcast", ""},
	"trustcast-agent": {"./cmd/trustcast-agent", "grpcnotrace"},
	faultyAgent:       {"./cmd/trustcast-agent", "grpcnotrace,faults"},
	"agents":          {"./bench/agents", "grpcnotrace"}, // many in one process
}

// program builds one, once, as `make build` does, and returns its path.
func (l *lab) program(ctx context.Context, name string) (string, error) {
	path := l.path(name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	source := sources[name]
	args := []string{"build", "-trimpath", "-ldflags", "-s -w"}
	if source.pkg == "./cmd/trustcast-agent" { // how it is built is part of what it costs
		flags, err := output(ctx, nil, "make", "--silent", "--no-print-directory", "agent-flags")
		if err != nil {
			return "", err
		}
		args = append(args, strings.Split(strings.TrimSpace(flags), "\n")...)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-tags", source.tags, "-o", path, source.pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// module builds the program of another module, once, in the version that go.mod has,
// or else in the given one, and returns its path.
func (l *lab) module(ctx context.Context, module, version, pkg string) (string, error) {
	bin := l.path("modules")
	program := filepath.Join(bin, filepath.Base(pkg))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if version == "" {
		listed, err := output(ctx, nil, "go", "list", "-m", "-f", "{{.Version}}", module)
		if err != nil {
			return "", err
		}
		version = strings.TrimSpace(listed)
	}
	cmd := exec.CommandContext(ctx, "go", "install", "-trimpath", "-ldflags", "-s -w", pkg+"@"+version)
	cmd.Dir = l.dir // outside of this module, whose go.sum lacks what the other links
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+bin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return program, nil
}

// debian installs the packages that are missing; commands says which program each
// has. Without root, or a network, the peer is left out by whoever gets the error.
func (l *lab) debian(ctx context.Context, packages map[string]string) error {
	var missing []string
	for pkg, command := range packages {
		if _, err := exec.LookPath(command); err != nil {
			if _, err := os.Stat("/usr/sbin/" + command); err != nil {
				missing = append(missing, pkg)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("not installed: %s", strings.Join(missing, ", "))
	}
	fmt.Fprintf(os.Stderr, "bench: installing %s\n", strings.Join(missing, ", "))
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1") // packages start no service
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// process is one that is measured.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
}

// start runs a program in the background. It ends with this one, whatever happens.
func (l *lab) start(name, program string, env []string, args ...string) (*process, error) {
	log, err := os.Create(l.path(fmt.Sprintf("%s-%d.log", name, len(l.processes))))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the program has its own handle
	cmd := l.network.command(context.Background(), program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name, cmd, log.Name()}
	l.processes = append(l.processes, p)
	return p, nil
}

// endLimit is more than a member of gossip takes to leave after a partition.
const endLimit = 30 * time.Second

// end ends it.
func (p *process) end() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	ended := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-time.After(endLimit):
		_ = p.cmd.Process.Kill() // as above
		<-ended
		return fmt.Errorf("%s did not end and was killed", p.name)
	}
}

// said is what it logged.
func (p *process) said() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// until waits until ready is true, and says what the process logged when it is not.
func (p *process) until(ctx context.Context, what string, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !ready() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not %s: %w\n%s", p.name, what, ctx.Err(), p.said())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// listens waits until somebody takes connections at an address.
func (p *process) listens(ctx context.Context, address string) error {
	return p.until(ctx, "listening at "+address, func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		_ = conn.Close() // it was only to see
		return true
	})
}

// free returns a loopback address that was free a moment ago, for programs that
// cannot say which one they took.
func free() (string, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return lis.Addr().String(), lis.Close()
}

// output runs a command to its end and returns what it printed.
func output(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = stdin
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), nil
}
