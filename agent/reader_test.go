package agent

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
)

const (
	// rotations is how many bundles are installed while the file is read.
	rotations = 1000
	// rotatorDir, set in the environment, makes this test binary the process that
	// installs them there.
	rotatorDir = "TRUSTCAST_TEST_ROTATOR_DIR"
)

// TestRotator is the process that TestReadersSeeWholeBundles kills: an agent's state
// and its way from an offer to the file, over and over. It prints each generation.
func TestRotator(t *testing.T) {
	dir := os.Getenv(rotatorDir)
	if dir == "" {
		t.Skip("it is started by TestReadersSeeWholeBundles")
	}
	h := rotatorHost(t, dir)
	if err := h.load(); err != nil {
		t.Fatal(err)
	}
	if have, _ := h.have(); have.OnDisk != h.bundle.Fingerprint() {
		fmt.Println("behind")
	}
	if problem := h.reconcile(nil); problem != "" {
		t.Fatal(problem)
	}
	for h.bundle.Generation < rotations {
		ca, pair := authorityFor(t, "registry.test")
		roots := h.bundle.Roots
		if len(roots) > 0 {
			roots = roots[len(roots)-1:]
		}
		generation := h.bundle.Generation + 1
		if problem := h.reconcile(offerOf(generation, generation, pair.Leaf, append(roots[:len(roots):len(roots)], ca)...)); problem != "" {
			t.Fatal(problem)
		}
		fmt.Println("generation", generation)
	}
	fmt.Println("generation", h.bundle.Generation) // again: who came so far may have been killed before it said so
}

func rotatorHost(t *testing.T, dir string) *membership {
	t.Helper()
	names, err := parseNames("registry.test:5000", nil)
	if err != nil {
		t.Fatal(err)
	}
	control, _ := authorityFor(t, "registry.test") // any CA: no server is talked to
	a := &membership{
		cfg: Config{DataDir: dir}.withDefaults(), store: store{dir: dir}, log: slog.New(slog.DiscardHandler),
		host: install.Host{Places: []install.Place{{Runtime: install.RuntimeDocker, Dir: filepath.Join(dir, "certs.d")}}}, names: names,
		enrolment: enrolment{Domain: "registry.test:5000", ControlCAs: [][]byte{control.Raw}},
	}
	a.link = newLink(a)
	return a
}

// reader reads a file as a container engine does, again and again, and keeps the first
// thing wrong with it.
type reader struct {
	path string
	stop chan struct{}
	done sync.WaitGroup

	reads   int
	bundles map[certs.Fingerprint]bool
	bad     error
}

func startReader(path string) *reader {
	r := &reader{path: path, stop: make(chan struct{}), bundles: map[certs.Fingerprint]bool{}}
	r.done.Go(func() {
		for r.bad == nil {
			select {
			case <-r.stop:
				return
			default:
			}
			data, err := os.ReadFile(r.path)
			if err != nil {
				r.bad = err
				return
			}
			roots, err := certs.ParsePEM(data)
			if err != nil {
				r.bad = fmt.Errorf("%d bytes: %w", len(data), err)
			}
			r.reads++
			r.bundles[certs.FingerprintOf(roots...)] = true
		}
	})
	return r
}

// end stops reading; it may be called once.
func (r *reader) end() {
	close(r.stop)
	r.done.Wait()
}

// TestReadersSeeWholeBundles: who reads the file all the time, while a thousand bundles
// are installed by a process that is killed again and again, never finds it missing,
// empty or cut. The control writes it in place, as cp does, and is caught.
func TestReadersSeeWholeBundles(t *testing.T) {
	dir := memoryDir(t)
	file := filepath.Join(dir, "certs.d", "registry.test:5000", "ca.crt")
	var r *reader
	kills, behind, last := 0, 0, ""
	for last != fmt.Sprint("generation ", rotations) {
		killed := startRotator(t, dir, func(line string) {
			switch {
			case line == "behind":
				behind++
			case strings.HasPrefix(line, "generation "):
				last = line
			}
			if r == nil && last != "" {
				r = startReader(file)
			}
		})
		if killed {
			kills++
		}
	}
	r.end()
	t.Logf("%d rotations, %d kills, %d of them between record and file: %d reads of %d bundles", rotations, kills, behind, r.reads, len(r.bundles))
	if r.bad != nil {
		t.Errorf("after %d reads: %v", r.reads, r.bad)
	}
	if kills < 5 || r.reads < rotations || len(r.bundles) < rotations/10 {
		t.Errorf("%d kills, %d reads, %d bundles: that shows nothing", kills, r.reads, len(r.bundles))
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}

	control := startReader(file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	caught := make(chan struct{})
	go func() {
		control.done.Wait()
		close(caught)
	}()
	limit := time.After(20 * time.Second)
	for writing := true; writing; {
		select {
		case <-caught:
			writing = false
		case <-limit:
			t.Error("a file that is written in place was not caught: the reader sees nothing")
			writing = false
		default:
			if err := os.WriteFile(file, whole, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	control.end()
	t.Logf("the control was caught after %d reads: %v", control.reads, control.bad)
}

// memoryDir is a directory in memory where there is one: two thousand synced writes
// would wait for a disk that others use, and a kill asks nothing of the disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "trustcast-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// startRotator runs one life of the rotator, which ends by kill -9 at a random moment
// after some generations, and hands on what it prints. killed is false when it came
// to its end.
func startRotator(t *testing.T, dir string, said func(line string)) (killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRotator$")
	cmd.Env = append(os.Environ(), rotatorDir+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var end *time.Timer
	until := 5 + rand.IntN(60) // generations of this life
	var printed []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		printed = append(printed, lines.Text())
		said(lines.Text())
		if strings.HasPrefix(lines.Text(), "generation ") {
			if until--; until == 0 {
				end = time.AfterFunc(rand.N(10*time.Millisecond), func() { _ = cmd.Process.Kill() })
			}
		}
	}
	err = cmd.Wait()
	if end != nil {
		end.Stop()
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	killed = ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	if err != nil && !killed {
		t.Fatalf("the rotator ended with %v: %s", err, strings.Join(printed, "\n"))
	}
	return killed
}
