package crash

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience bounds each wait; a healthy run needs a hundredth of it.
	patience = 60 * time.Second
	// soon bounds the wait for what follows at once, such as the end of a write
	// under way.
	soon = 30 * time.Second
	// poll is how often a condition is looked at.
	poll = 5 * time.Millisecond
)

// process is a program in the background, in a process group of its own.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when it has ended
}

// output is what a program prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs a program in the background; ended is called once it has.
func start(name string, env, argv []string, ended func(*process)) (*process, error) {
	p := &process{name: name, cmd: exec.Command(argv[0], argv[1:]...), out: &output{}, done: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is asked by killed
		ended(p)
		close(p.done)
	}()
	return p, nil
}

// kill ends the whole group and waits for it.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// pause stops the whole group; it keeps its connections and says nothing.
func (p *process) pause() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }

// goOn ends a pause; without one it does nothing.
func (p *process) goOn() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) }

// terminate asks the whole group to end and waits for it.
func (p *process) terminate() error {
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM); err != nil {
		return err
	}
	return until(p.name+" ends", func() (bool, string) { return p.ended(), p.out.String() })
}

// ended says whether the process has.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// killed says whether it ended by SIGKILL; it has ended.
func (p *process) killed() bool {
	s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGKILL
}

// awaitLog returns the first submatch of pattern in what it prints; ok is false
// when it ended before that.
func (p *process) awaitLog(pattern string) (match string, ok bool, err error) {
	re := regexp.MustCompile(pattern)
	err = until(fmt.Sprintf("%s prints %s", p.name, pattern), func() (bool, string) {
		ended := p.ended() // first: what it printed last counts
		if m := re.FindStringSubmatch(p.out.String()); m != nil {
			match, ok = m[len(m)-1], true
			return true, ""
		}
		return ended, p.out.String()
	})
	return match, ok, err
}

// until polls a condition. The error names what was awaited and what was seen
// last.
func until(what string, cond func() (ok bool, saw string)) error {
	return untilIn(patience, what, cond)
}

func untilIn(bound time.Duration, what string, cond func() (ok bool, saw string)) error {
	for deadline := time.Now().Add(bound); ; time.Sleep(poll) {
		ok, saw := cond()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %s", what, bound, saw)
		}
	}
}

// run runs a program to its end and returns what it printed, also on an error.
func run(env, argv []string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(3, len(argv))], " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
