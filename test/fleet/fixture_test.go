//go:build linux

package fleet_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	user     = "alice"
	password = "correct horse battery staple"
	appImage = domain + "/fleet/app:v1"
)

// fleet is a server, its hosts and what they have done so far.
type fleet struct {
	run    *run
	net    *network
	server *server
	hosts  []*host
	flags  []string // of the hosts' dockerds
	sum    figures
}

// newFleet builds the programs and the machines, with that many hosts, whose
// dockerds get the flags; the server is not started.
func newFleet(t *testing.T, hosts int, flags ...string) *fleet {
	t.Helper()
	begin := time.Now()
	f := emptyFleet(t)
	f.flags = flags
	must(t, f.build())
	must(t, writeImage(f.run.path("image.tar")))
	must(t, f.makeMachines(hosts))
	t.Logf("%s: %d Docker engines after %v", f.run.name(), len(f.hosts), time.Since(begin).Round(time.Second))
	return f
}

// emptyFleet has no machines yet. Whatever is made for it is removed, and seen
// to be gone, at the end of the test.
func emptyFleet(t *testing.T) *fleet {
	t.Helper()
	r, err := claim()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{run: r}
	onInterrupt(r.reaper.Process.Pid)
	outside := directory("/etc/docker/certs.d")
	t.Cleanup(func() {
		f.stopAll(t)
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if now := directory("/etc/docker/certs.d"); now != outside {
			t.Errorf("the machine's own certs.d has changed from %s to %s", outside, now)
		}
	})
	return f
}

// build compiles the programs, and once more with their test-only switches.
func (f *fleet) build() error {
	for _, args := range [][]string{
		{"-o", f.run.path("bin", "trustcast"), "./cmd/trustcast"},
		{"-o", f.run.path("bin", "trustcast-agent"), "./cmd/trustcast-agent"},
		{"-tags", "faults", "-o", f.run.path("bin", "trustcast-faults"), "./cmd/trustcast"},
		{"-tags", "faults", "-o", f.run.path("bin", "trustcast-agent-faults"), "./cmd/trustcast-agent"},
	} {
		cmd := exec.Command("go", append([]string{"build"}, args...)...)
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return nil
}

func (f *fleet) makeMachines(count int) error {
	err := f.makeNetwork()
	if err != nil {
		return err
	}
	if f.server, err = newServer(f.net); err != nil {
		return err
	}
	return f.makeHosts(count, fmt.Sprintf("127.0.0.1 localhost\n%s registry.test\n", f.run.addr(serverAddr)))
}

// makeNetwork makes what hosts are plugged into, and the directory that each
// binds its own over.
func (f *fleet) makeNetwork() error {
	if err := os.Mkdir("/etc/docker", 0o755); err == nil {
		if err := os.WriteFile(f.run.path(madeEtcDocker), nil, 0o600); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	var err error
	f.net, err = newNetwork(f.run)
	return err
}

// makeHosts makes that many hosts with this /etc/hosts, and starts their engines.
func (f *fleet) makeHosts(count int, hosts string) error {
	for i := range count {
		h, err := newHost(f.net, i+1, hosts)
		if err != nil {
			return err
		}
		h.flags = f.flags
		f.hosts = append(f.hosts, h)
	}
	f.sum.hosts = len(f.hosts)
	return f.each(func(h *host) error { return h.startEngine() })
}

// each does something on all hosts at once.
func (f *fleet) each(do func(*host) error) error {
	errs := make([]error, len(f.hosts))
	var wg sync.WaitGroup
	for i, h := range f.hosts {
		wg.Go(func() { errs[i] = do(h) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stopAll ends the programs as an operator would; the reaper would kill them.
func (f *fleet) stopAll(t *testing.T) {
	err := f.each(func(h *host) error {
		if h.agent != nil {
			h.agent.signal(syscall.SIGCONT)
		}
		return errors.Join(h.stopAgent(syscall.SIGTERM), h.stopEngine())
	})
	if f.server != nil {
		err = errors.Join(err, f.server.stop())
	}
	if err != nil {
		t.Error(err)
	}
}

// scenario is a subtest that says at its end, if it failed, what the server
// thought and what was logged.
func (f *fleet) scenario(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Log(f.report())
			}
		}()
		test(t)
	})
}

func (f *fleet) report() string {
	st, err := f.server.status()
	seen, _ := json.MarshalIndent(st, "", " ")
	text := fmt.Sprintf("status: %s (%v)\nserver:\n%s\n", seen, err, tail(f.run.path("server.log"), 40))
	for _, h := range f.hosts {
		text += fmt.Sprintf("agent of %s:\n%s\n", h.name, tail(f.run.path(h.name+"-agent.log"), 20))
	}
	return text
}

// restart starts the server again, with other settings.
func (f *fleet) restart(t *testing.T, binary, faults string, args ...string) {
	t.Helper()
	must(t, f.server.stop())
	var env []string
	if faults != "" {
		env = []string{"TRUSTCAST_FAULTS=" + faults}
	}
	must(t, f.server.start(binary, env, args...))
}

// waitTrusted waits until no rotation is under way and each host has what it
// should.
func (f *fleet) waitTrusted(t *testing.T, bound time.Duration) {
	t.Helper()
	must(t, f.server.wait(bound, "all hosts trusted and idle", f.trusted))
}

func (f *fleet) trusted(st status) bool {
	for _, h := range f.hosts {
		if hs := st.host(h.name); hs.State != "trusted" || hs.Fingerprint != st.Fingerprint {
			return false
		}
	}
	return st.Rotation.Phase == "idle"
}

// beginRotation runs `ca rotate` and returns the rotation's number.
func (f *fleet) beginRotation(t *testing.T, args ...string) int {
	t.Helper()
	before, err := f.server.status()
	must(t, err)
	_, err = f.server.command(append([]string{"ca", "rotate", "--yes"}, args...)...)
	must(t, err)
	f.sum.rotations++
	return before.number() + 1
}

// rotate does a whole rotation that nobody holds up, and takes its times.
func (f *fleet) rotate(t *testing.T) {
	t.Helper()
	watch := watchFiles(f.hosts)
	begin := time.Now()
	n := f.beginRotation(t)
	err := f.server.wait(time.Minute, fmt.Sprintf("end of rotation %d", n), func(st status) bool {
		return st.number() == n && f.trusted(st)
	})
	file := watch.end().Sub(begin)
	must(t, err)
	switched, err := f.server.phaseTime(n, "switched")
	must(t, err)
	idle, err := f.server.phaseTime(n, "idle")
	must(t, err)
	evidence := switched.Sub(begin)
	f.sum.file = append(f.sum.file, file)
	f.sum.evidence = append(f.sum.evidence, evidence)
	t.Logf("rotation %d: last file after %v, last evidence after %v, idle after %v",
		n, file.Round(time.Millisecond), evidence.Round(time.Millisecond), idle.Sub(begin).Round(time.Millisecond))
}

// hold stops a host's agent, as a debugger would, until the returned function
// or the end of the test lets it go on.
func (f *fleet) hold(t *testing.T, h *host) (release func()) {
	p := h.agent
	p.signal(syscall.SIGSTOP)
	release = func() { p.signal(syscall.SIGCONT) }
	t.Cleanup(release)
	return release
}

// pull is one pull that counts.
func (f *fleet) pull(t *testing.T, h *host) {
	t.Helper()
	f.sum.pulls++
	if err := h.pull(appImage); err != nil {
		f.sum.failed++
		t.Errorf("%s: %v", h.name, err)
	}
}

// setLinks pulls or plugs the cables of all hosts.
func (f *fleet) setLinks(t *testing.T, up bool) {
	t.Helper()
	for _, h := range f.hosts {
		must(t, f.net.setLink(h.name, up))
	}
}

// served is the length of the chain that the registry presents.
func (f *fleet) served(t *testing.T) int {
	t.Helper()
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{ServerName: "registry.test", InsecureSkipVerify: true}} // only counted, not trusted
	conn, err := dialer.DialContext(t.Context(), "tcp", f.server.listen(registryPort))
	must(t, err)
	defer func() { _ = conn.Close() }()
	return len(conn.(*tls.Conn).ConnectionState().PeerCertificates)
}

// directory describes a directory's entries, or its absence.
func directory(path string) string {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "absent"
	}
	text := strconv.Itoa(len(entries)) + " entries"
	for _, e := range entries {
		text += " " + e.Name()
	}
	return text
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
