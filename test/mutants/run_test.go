package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// timeout of one `go test`: the slowest simulation takes half a minute on a quiet
// machine. A mutant that makes a test hang is not caught by it, see run.judge.
const timeout = 5 * time.Minute

// event is what `go test -json` says, one a line.
type event struct {
	Action, Package, Test, Output string
}

// run is what a `go test` did.
type run struct {
	passed, failed map[string]bool // tests by name
	unbuilt        bool
	output         string
	took           time.Duration
	cpu            time.Duration // of the go command and what it started
}

// goTest runs tests of a package; names is a pattern for -run. overlay may be "".
func goTest(ctx context.Context, overlay, pkg, names string) (run, error) {
	args := []string{"test", "-json", "-count=1", "-vet=off", "-ldflags=-s -w", "-timeout", timeout.String(), "-run", names}
	if overlay != "" {
		args = append(args, "-failfast", "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(),
		"TRUSTCAST_PROVE=",      // no test that catches needs to go further
		"RAPID_NOFAILFILE=true") // what breaks a mutant is no case to keep in the tree
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	start := time.Now()
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return run{}, fmt.Errorf("go test: %w", err)
	}
	r := run{
		passed: map[string]bool{}, failed: map[string]bool{},
		took: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
	}
	return r, r.read(&out, complaints.String())
}

func (r *run) read(out io.Reader, complaints string) error {
	text := strings.Builder{}
	text.WriteString(complaints)
	for dec := json.NewDecoder(out); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("go test -json: %w\n%s", err, complaints)
		}
		text.WriteString(e.Output)
		switch {
		case e.Action == "build-fail":
			r.unbuilt = true
		case e.Test != "" && e.Action == "pass":
			r.passed[e.Test] = true
		case e.Test != "" && e.Action == "fail":
			r.failed[e.Test] = true
		}
	}
	r.output = text.String()
	return nil
}

// judge says what is wrong with a mutant whose test was run, or nil when the test
// failed over it.
func (r run) judge(t test) error {
	switch {
	case r.unbuilt:
		return fmt.Errorf("it does not compile:\n%s", r.output)
	case strings.Contains(r.output, "panic: test timed out"):
		return fmt.Errorf("%s %s hangs; that is no verdict:\n%s", t.pkg, t.name, r.output)
	case r.failed[t.name]:
		return nil
	case r.passed[t.name]:
		return fmt.Errorf("it survives: %s %s passes", t.pkg, t.name)
	}
	return fmt.Errorf("%s %s did not run:\n%s", t.pkg, t.name, r.output)
}

// pattern is what -run takes for exactly one test.
func (t test) pattern() string {
	return "^" + strings.ReplaceAll(t.name, "/", "$/^") + "$"
}

// run applies the mutant in dir and runs its tests; each must fail.
func (m mutant) run(ctx context.Context, dir string) (took, cpu time.Duration, err error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, t := range m.tests {
		r, err := goTest(ctx, overlay, t.pkg, t.pattern())
		took, cpu = took+r.took, cpu+r.cpu
		if err != nil {
			return took, cpu, err
		}
		if err := r.judge(t); err != nil {
			return took, cpu, err
		}
	}
	return took, cpu, nil
}
