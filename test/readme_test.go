package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tested finds the README's blocks that must work as they stand.
var tested = regexp.MustCompile("(?s)<!-- tested: (server|host) -->\n```sh\n(.*?)```")

// TestReadme runs the commands of the README, line by line and word by word, on
// this machine: environment variables alone move ports and directories, and a
// name stands for the server's address. What packages do is done by hand;
// TestTutorial in test/fleet installs them.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := tested.FindAllStringSubmatch(string(readme), -1)
	if len(blocks) != 3 {
		t.Fatalf("README.md has %d tested blocks, want 3", len(blocks))
	}
	r := newReader(t)
	token := ""
	for _, s := range stepsOf(t, "../README.md") {
		switch {
		case strings.HasPrefix(s.line, "dpkg -i "):
		case s.line == "systemctl start trustcast":
			r.run(s.where, "trustcast server &")
		case strings.HasPrefix(s.line, "trustcast token create"):
			token = printedToken.FindString(r.run(s.where, s.line))
		case strings.HasPrefix(s.line, "trustcast-agent join "):
			r.run(s.where, strings.ReplaceAll(s.line, "tc1.…", token))
			r.run(s.where, "trustcast-agent run &")
		default:
			r.run(s.where, s.line)
		}
	}
	out := r.run("host", "trustcast-agent status")
	if !strings.Contains(out, "generation      3") {
		t.Errorf("after the README's rotation the host says:\n%s", out)
	}
}

// printedToken is a join token in what `token create` prints.
var printedToken = regexp.MustCompile(`tc1\.\S+`)

// reader is somebody who follows the README.
type reader struct {
	t       *testing.T
	dir     string
	env     map[string][]string
	address string            // of the server's gRPC port, once it runs
	stops   map[string]func() // end what runs on a machine
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, dir: t.TempDir(), stops: map[string]func(){}}
	base := append(os.Environ(), "PATH="+programsDir(t)+":"+os.Getenv("PATH"))
	r.env = map[string][]string{
		"server": append(base[:len(base):len(base)],
			"TRUSTCAST_DATA_DIR="+filepath.Join(r.dir, "server"), "TRUSTCAST_LISTEN=127.0.0.1:0", "TRUSTCAST_GRPC_LISTEN=127.0.0.1:0",
			"TRUSTCAST_GOSSIP_LISTEN=127.0.0.1:0", "TRUSTCAST_HTTP_LISTEN=127.0.0.1:0", "TRUSTCAST_TICK=1s", "TRUSTCAST_ADVERTISE=127.0.0.1"),
		"host": append(base[:len(base):len(base)],
			"TRUSTCAST_DATA_DIR="+filepath.Join(r.dir, "agent"), "TRUSTCAST_DOCKER_CERTS_DIR="+filepath.Join(r.dir, "certs.d"),
			"TRUSTCAST_GOSSIP_LISTEN=127.0.0.1:0"),
	}
	return r
}

// assignments are variables before a command.
var assignments = regexp.MustCompile(`^([A-Z_]+=\S* )*`)

// run runs one line, of which every command of a pipe must succeed, and returns its
// output; one that ends in & stays until the test ends. Somebody who types is slower
// than an agent that has just connected; for its status a test waits.
func (r *reader) run(where, line string) string {
	r.t.Helper()
	out, err := r.try(where, line)
	for end := time.Now().Add(30 * time.Second); err != nil && strings.HasPrefix(line, "trustcast-agent status") && time.Now().Before(end); {
		out, err = r.try(where, line)
	}
	if err != nil {
		r.t.Fatalf("on the %s: %s: %v\n%s", where, line, err, out)
	}
	return out
}

func (r *reader) try(where, line string) (string, error) {
	r.t.Helper()
	if r.address != "" {
		line = strings.ReplaceAll(line, "registry.example.com:7443", r.address)
	}
	command, background := strings.CutSuffix(line, " &")
	if background { // signals are for the program
		command = assignments.ReplaceAllString(command, "${0}exec ")
	}
	limit := time.Minute
	if background {
		limit = time.Hour // the test ends it
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", command)
	cmd.Dir, cmd.Env = r.dir, r.env[where]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // all of a pipe
	if background {
		r.start(where, cmd, cancel, line)
		return "", nil
	}
	defer cancel()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// start runs a process until the test ends or it is stopped, and waits until it is up.
func (r *reader) start(where string, cmd *exec.Cmd, cancel context.CancelFunc, line string) {
	r.t.Helper()
	log := filepath.Join(r.dir, fmt.Sprintf("log%d", time.Now().UnixNano()))
	f, err := os.Create(log)
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.Stderr = f
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.stops[where] = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			r.t.Errorf("%s ended with %v", line, err)
		}
		cancel()
		_ = f.Close()
	})
	r.t.Cleanup(r.stops[where])
	grpc := regexp.MustCompile(`what=grpc address=(\S+)`)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(log)
		if err != nil {
			r.t.Fatal(err)
		}
		if m := grpc.FindSubmatch(data); m != nil {
			r.address = string(m[1])
		}
		if bytes.Contains(data, []byte("msg=serving")) || bytes.Contains(data, []byte("msg=connected")) {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s is not up:\n%s", line, data)
		}
	}
}
