// Command footprint prints what trustcast costs where it runs: the size of the
// stripped programs, and their memory when idle, with one server and a fleet of
// a few agents on this machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// agents is a small fleet: gossip keeps every member in memory, so the
	// figure is for a few hosts.
	agents = 5
	// settle is how long the programs idle before they are measured: long
	// enough for the garbage of their start to be collected and returned.
	settle = 20 * time.Second
	// limit ends a run that hangs.
	limit = 2 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "footprint:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "trustcast-footprint-")
	if err != nil {
		return err
	}
	b := &bench{dir: dir}
	defer func() { err = errors.Join(err, b.clear()) }()
	if err := b.build(ctx); err != nil {
		return err
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	fmt.Printf("idle for %s, one server and %d agents:\n", settle, agents)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	return b.print()
}

// bench is one run: its directory and its processes.
type bench struct {
	dir       string
	processes []*exec.Cmd
}

// clear ends the processes and removes the directory.
func (b *bench) clear() error {
	for _, p := range b.processes {
		_ = p.Process.Kill() // it may have ended by itself
		_ = p.Wait()
	}
	return os.RemoveAll(b.dir)
}

// build makes the programs as `make build` does.
func (b *bench) build(ctx context.Context) error {
	for _, program := range []struct{ name, tags string }{{"trustcast", ""}, {"trustcast-agent", "grpcnotrace"}} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", program.tags, "-ldflags", "-s -w", "-o", b.path(program.name), "./cmd/"+program.name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program.name, err, out)
		}
		fi, err := os.Stat(b.path(program.name))
		if err != nil {
			return err
		}
		fmt.Printf("%-16s %5.1f MB stripped\n", program.name, float64(fi.Size())/1e6)
	}
	return nil
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

// start runs a server and its agents until every host is trusted.
func (b *bench) start(ctx context.Context) error {
	log, err := b.launch("server", "trustcast", "server", "--init", "--domain", "localhost", "--data-dir", b.path("data"),
		"--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0", "--http-listen", "off")
	if err != nil {
		return err
	}
	var address string
	for address == "" {
		raw, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if m := regexp.MustCompile(`what=grpc address=(\S+)(?s:.*)msg=serving`).FindSubmatch(raw); m != nil {
			address = string(m[1])
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("the server did not start: %w\n%s", err, raw)
		}
	}
	token, err := b.trustcast(ctx, "token", "create", "-q")
	if err != nil {
		return err
	}
	for i := range agents {
		name := fmt.Sprintf("host-%d", i)
		if _, err := b.launch(name, "trustcast-agent", "run", "--join", address, "--token", strings.TrimSpace(token), "--name", name,
			"--data-dir", b.path(name), "--docker-certs-dir", b.path(name, "certs.d"), "--gossip-listen", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	for {
		list, err := b.trustcast(ctx, "host", "ls")
		if err != nil {
			return err
		}
		if strings.Count(list, " trusted ") == agents {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("the hosts did not become trusted: %w\n%s", err, list)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

// launch runs a program in the background and returns the path of its log.
func (b *bench) launch(name, program string, args ...string) (string, error) {
	log, err := os.Create(b.path(name + ".log"))
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close() }() // the program has its own handle
	cmd := exec.Command(b.path(program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	b.processes = append(b.processes, cmd)
	return log.Name(), nil
}

func (b *bench) trustcast(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, b.path("trustcast"), append(args, "--data-dir", b.path("data"))...).Output()
	if err != nil {
		return "", fmt.Errorf("trustcast %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// print shows the server's memory, and the greatest of the agents'.
func (b *bench) print() error {
	var server, agent memory
	for i, p := range b.processes {
		m, err := memoryOf(p.Process.Pid)
		if err != nil {
			return err
		}
		if i == 0 {
			server = m
		} else if m.resident > agent.resident {
			agent = m
		}
	}
	fmt.Printf("%-16s %s\n%-16s %s (the greatest of %d)\n", "trustcast", server, "trustcast-agent", agent, agents)
	return nil
}

// memory is in kB, as the kernel counts.
type memory struct{ resident, anonymous int }

func (m memory) String() string {
	return fmt.Sprintf("%5.1f MB resident, %.1f MB of it anonymous", float64(m.resident)*1024/1e6, float64(m.anonymous)*1024/1e6)
}

func memoryOf(pid int) (memory, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, fmt.Errorf("a program ended: %w", err)
	}
	var m memory
	for field, value := range map[string]*int{"VmRSS": &m.resident, "RssAnon": &m.anonymous} {
		found := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(raw)
		if found == nil {
			return memory{}, fmt.Errorf("process %d has no %s: it has ended", pid, field)
		}
		if *value, err = strconv.Atoi(string(found[1])); err != nil {
			return memory{}, err
		}
	}
	return m, nil
}
