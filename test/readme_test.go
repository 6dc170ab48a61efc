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
	"syscall"
	"testing"
	"time"
)

// tested finds the README's blocks that must work as they stand.
var tested = regexp.MustCompile("(?s)<!-- tested: (server|host) -->\n```sh\n(.*?)```")

// TestReadme runs the commands of the README, line by line and word by word, on
// this machine: environment variables alone move ports and directories, and a
// name stands for the server's address.
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
	for _, b := range blocks {
		for line := range strings.Lines(b[2]) {
			if command, _, _ := strings.Cut(line, " #"); strings.TrimSpace(command) != "" {
				r.run(b[1], strings.TrimSpace(command))
			}
		}
	}
	out := r.run("host", "trustcast-agent status")
	if !strings.Contains(out, "generation      3") {
		t.Errorf("after the README's rotation the host says:\n%s", out)
	}
}

// reader is somebody who follows the README.
type reader struct {
	t       *testing.T
	dir     string
	env     map[string][]string
	address string // of the server's gRPC port, once it runs
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, dir: t.TempDir()}
	bin := filepath.Join(r.dir, "bin")
	build := exec.Command("go", "build", "-o", bin+"/", "../cmd/trustcast", "../cmd/trustcast-agent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	base := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
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
// output; one that ends in & stays until the test ends.
func (r *reader) run(where, line string) string {
	r.t.Helper()
	if r.address != "" {
		line = strings.ReplaceAll(line, "registry.example.com:7443", r.address)
	}
	command, background := strings.CutSuffix(line, " &")
	if background { // signals are for the program
		command = assignments.ReplaceAllString(command, "${0}exec ")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", command)
	cmd.Dir, cmd.Env = r.dir, r.env[where]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // all of a pipe
	if background {
		r.start(cmd, cancel, line)
		return ""
	}
	defer cancel()
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("on the %s: %s: %v\n%s", where, line, err, out)
	}
	return string(out)
}

// start runs a process until the test ends, and waits until it is up.
func (r *reader) start(cmd *exec.Cmd, cancel context.CancelFunc, line string) {
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
	r.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			r.t.Errorf("%s ended with %v", line, err)
		}
		cancel()
		_ = f.Close()
	})
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
