package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// stage is the machine of the demo: directories, processes, addresses.
type stage struct {
	out   io.Writer
	began time.Time
	// dir holds everything that the demo writes.
	dir string
	// domain is the registry's host:port; password is the demo user's.
	domain, password string
	// agents is where agents connect.
	agents    string
	processes []*process
	scene     int
	counts    struct{ pulls, failed, rotations int }
}

// process is a program in the background, in a process group of its own: Ctrl-C
// reaches the demo alone, which ends them in order.
type process struct {
	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan struct{} // closed when it has ended
}

func newStage(out io.Writer) (*stage, error) {
	for _, program := range []string{"trustcast", "trustcast-agent"} {
		if _, err := os.Stat(filepath.Join("bin", program)); err != nil {
			return nil, fmt.Errorf("bin/%s is not there; 'make demo' builds it and runs this", program)
		}
	}
	dir, err := os.MkdirTemp("", "trustcast-demo-")
	if err != nil {
		return nil, err
	}
	return &stage{out: out, began: time.Now(), dir: dir}, nil
}

// clear ends all processes, then removes what they wrote.
func (s *stage) clear() error {
	for i := len(s.processes) - 1; i >= 0; i-- {
		s.processes[i].end()
	}
	return os.RemoveAll(s.dir)
}

// grace is how long a program may take to end by itself.
const grace = 5 * time.Second

func (p *process) end() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // also what it may have started
	<-p.done
}

// start runs a program in the background.
func (s *stage) start(program string, stdin string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(filepath.Join("bin", program), args...), log: &lockedBuffer{}, done: make(chan struct{})}
	p.cmd.Stdin = strings.NewReader(stdin)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended stands in its log
		close(p.done)
	}()
	s.processes = append(s.processes, p)
	return p, nil
}

// awaitLog returns the first submatch of pattern in the program's log.
func (p *process) awaitLog(ctx context.Context, pattern string) (string, error) {
	re := regexp.MustCompile(pattern)
	for {
		if m := re.FindStringSubmatch(p.log.String()); m != nil {
			return m[len(m)-1], nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-p.done:
			return "", fmt.Errorf("%s ended:\n%s", filepath.Base(p.cmd.Path), p.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// trustcast runs the operator's command and returns its stdout.
func (s *stage) trustcast(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := s.stream(ctx, &out, args...)
	return strings.TrimSpace(out.String()), err
}

// stream does the same with stdout as it comes.
func (s *stage) stream(ctx context.Context, out io.Writer, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join("bin", "trustcast"), append(args, "--data-dir", s.serverDir())...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

func (s *stage) serverDir() string { return filepath.Join(s.dir, "server") }

func hostName(i int) string { return fmt.Sprintf("host-%d", i+1) }

// certsDir stands in for /etc/docker/certs.d of a host.
func (s *stage) certsDir(i int) string { return filepath.Join(s.dir, hostName(i), "certs.d") }

// installed is the CA file that the host's agent keeps.
func (s *stage) installed(i int) string { return filepath.Join(s.certsDir(i), s.domain, "ca.crt") }

// title opens the next scene with the command that a person would type.
func (s *stage) title(text string, args ...any) {
	s.scene++
	s.say("\n%d. "+text, append([]any{s.scene}, args...)...)
}

func (s *stage) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, format+"\n", args...) // a demo nobody reads still shows by its exit code
}

// explain adds the logs to an error: the directory is gone when it is read.
func (s *stage) explain(err error) error {
	for _, p := range s.processes {
		err = fmt.Errorf("%w\n--- %s\n%s", err, strings.Join(p.cmd.Args, " "), p.log)
	}
	return err
}
