package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/internal/below"
	"github.com/trustcast/trustcast/test/images"
)

// running runs an engine; changes has a slot that changed fills.
func running(t *testing.T, d *Docker) (changes chan struct{}) {
	t.Helper()
	changes = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- d.Run(ctx, func() {
			select {
			case changes <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	return changes
}

func expect(t *testing.T, changes chan struct{}, why string) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing was said about %s", why)
	}
}

func TestDockerTellsOfAKilledReplica(t *testing.T) {
	s := newStand(t, images.Registry(t))
	d := s.engine(t)
	changes := running(t, d)
	expect(t, changes, "the engine that answers")
	for _, signal := range []string{"KILL", "TERM"} {
		stays, dies := open(t, d), open(t, d)
		select {
		case <-changes:
			t.Error("a start was told of")
		default:
		}
		docker(t, "kill", "--signal", signal, d.containerName(dies.ID))
		expect(t, changes, "a killed replica")
		alive, err := d.Alive(t.Context(), []string{stays.ID, dies.ID})
		if err != nil || !slices.Equal(alive, []string{stays.ID}) {
			t.Errorf("alive %v (%v), want %s", alive, err, stays.ID)
		}
	}
}

// dockerd is an engine of the test's own, to stop and start.
type dockerd struct {
	dir string
	cmd *exec.Cmd
}

func (e *dockerd) host() string { return "unix://" + filepath.Join(e.dir, "d.sock") }

func newDockerd(t *testing.T) *dockerd {
	t.Helper()
	images.Docker(t)
	if _, err := exec.LookPath("dockerd"); err != nil {
		images.Skip(t, "needs dockerd: "+err.Error())
	}
	dir, err := os.MkdirTemp("", "tct") // short: sockets are below
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}"), 0o600)) // not the machine's
	e := &dockerd{dir: dir}
	t.Cleanup(func() {
		e.stop(t, syscall.SIGTERM)
		e.killShims(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	e.start(t)
	return e
}

func (e *dockerd) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer func() { _ = log.Close() }()
	// Namespaces of its own: of mounts, which hides the system's containerd, that it
	// would share; of networks, since without a bridge it removes docker0.
	e.cmd = exec.Command("unshare", "--mount", "--net", "--propagation", "private", "sh", "-c",
		`if [ -d /run/containerd ]; then mount -t tmpfs none /run/containerd; fi; exec "$@"`, "sh",
		"dockerd", "--config-file", filepath.Join(e.dir, "daemon.json"), "--host", e.host(), "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "pid"), "--storage-driver", "vfs", "--bridge=none", "--iptables=false", "--ip6tables=false")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	must(t, e.cmd.Start())
	answers := func() bool {
		return exec.CommandContext(t.Context(), "docker", "--host", e.host(), "version").Run() == nil
	}
	for deadline := time.Now().Add(30 * time.Second); !answers(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("dockerd does not answer: %s", said[max(0, len(said)-3000):])
		}
	}
}

func (e *dockerd) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	if e.cmd == nil {
		return
	}
	must(t, e.cmd.Process.Signal(signal))
	_ = e.cmd.Wait() // its exit code says nothing about the test
	e.cmd = nil
	// Its containerd dies with it. Where nobody reaps that, the next dockerd takes it for alive.
	_ = os.Remove(filepath.Join(e.dir, "exec/containerd/containerd.pid"))
}

// killShims ends what outlives a killed engine: shims, which name the directory, and
// the containers below them.
func (e *dockerd) killShims(t *testing.T) {
	t.Helper()
	parents := map[string]bool{}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, line := range lines {
		if args, err := os.ReadFile(line); err == nil && strings.Contains(string(args), "-address\x00"+e.dir+"/") {
			parents[filepath.Base(filepath.Dir(line))] = true
		}
	}
	for _, line := range lines {
		pid := filepath.Base(filepath.Dir(line))
		status, err := os.ReadFile(filepath.Join(filepath.Dir(line), "status"))
		if err != nil {
			continue // ended meanwhile
		}
		_, rest, _ := strings.Cut(string(status), "\nPPid:\t")
		parent, _, _ := strings.Cut(rest, "\n")
		if n, err := strconv.Atoi(pid); err == nil && (parents[pid] || parents[parent]) {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
}

func TestDockerEngineRestarts(t *testing.T) {
	engine := newDockerd(t)
	image := images.Registry(t)
	images.Load(t, engine.host(), image)
	root, err := DockerVolume(t.Context(), engine.host(), "vol", "registry.test:5000")
	must(t, err)
	var log bytes.Buffer
	d, err := NewDocker(t.Context(), DockerConfig{
		Domain: "registry.test:5000", Fleet: "fleet", Volume: "vol", Root: root, Image: image, HTTPSecret: "secret", Host: engine.host(),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	must(t, err)
	t.Run("restarts", func(t *testing.T) { // Run ends before its log is read
		changes := running(t, d)
		expect(t, changes, "the engine that answers")
		e, err := d.Open(t.Context(), "")
		must(t, err)
		upload(t, over(t, e))
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			engine.stop(t, signal)
			if _, err := d.Alive(t.Context(), []string{e.ID}); err == nil || !strings.Contains(err.Error(), "start the engine") {
				t.Errorf("error %v", err)
			}
			if _, err := d.Open(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "start the engine") {
				t.Errorf("error %v", err)
			}
			if signal == syscall.SIGKILL { // containers do not need their engine
				if resp := answer(t, over(t, e), http.MethodGet, "/v2/", nil); resp.StatusCode != http.StatusOK {
					t.Errorf("without an engine: %s", resp.Status)
				}
			}
			select {
			case <-changes: // those that ended with the engine
			default:
			}
			engine.start(t)
			expect(t, changes, "the engine that is back")
			eventually(t, "the old replica is dead", func() bool {
				alive, err := d.Alive(t.Context(), []string{e.ID})
				return err == nil && len(alive) == 0
			})
			must(t, d.Close(t.Context(), e.ID))
			e, err = d.Open(t.Context(), "")
			must(t, err)
			if n := uploads(t, root); n != 1 {
				t.Errorf("%d uploads", n)
			}
		}
		must(t, d.Close(t.Context(), e.ID))
	})
	// An engine that starts may answer and go once more.
	if got := log.String(); strings.Count(got, "is gone") < 2 || strings.Count(got, "is back") != strings.Count(got, "is gone") {
		t.Errorf("log:\n%s", got)
	}
	if left, err := os.ReadDir(filepath.Join(root, runDir)); err != nil || len(left) > 0 {
		t.Errorf("run/ has %v (%v)", left, err)
	}
}

// blobs makes files of root's below docker/.
func blobs(t *testing.T, root string, n int) {
	t.Helper()
	for i := range n {
		dir := filepath.Join(root, blobsDir, fmt.Sprintf("registry/v2/blobs/%03d", i))
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "data"), nil, 0o644))
	}
}

// foreign counts what is below a directory and not a user's.
func foreign(t *testing.T, dir string, who owner) (n int) {
	t.Helper()
	must(t, filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !who.has(info) {
			n++
		}
		return err
	}))
	return n
}

// stopAfter is a context that ends after it was asked a number of times.
type stopAfter struct {
	context.Context
	left int
}

func (c *stopAfter) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestOwnGoesOnAfterAnInterruption(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root changes owners")
	}
	dir, outside := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "file"), nil, 0o600))
	blobs(t, dir, 20)
	must(t, os.Symlink(outside, filepath.Join(dir, blobsDir, "link")))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer func() { _ = root.Close() }()
	who := owner{unprivileged, unprivileged}
	must(t, prepare(root, who))
	all := foreign(t, filepath.Join(dir, blobsDir), who)

	err = own(&stopAfter{t.Context(), 10}, root, who, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "a new start goes on") {
		t.Errorf("error %v", err)
	}
	left := foreign(t, filepath.Join(dir, blobsDir), who)
	if left == 0 || left == all {
		t.Errorf("an interruption left %d of %d", left, all)
	}
	if done, err := owned(root, who); done || err != nil {
		t.Errorf("half of it counts as done (%v)", err)
	}
	must(t, prepare(root, who)) // the next start
	if done, err := owned(root, who); done || err != nil {
		t.Errorf("half of it counts as done after a start (%v)", err)
	}
	var log bytes.Buffer
	must(t, own(t.Context(), root, who, slog.New(slog.NewTextHandler(&log, nil))))
	if n := foreign(t, filepath.Join(dir, blobsDir), who); n != 0 {
		t.Errorf("%d are left", n)
	}
	if want := fmt.Sprintf("changed=%d", left-1); !strings.Contains(log.String(), want) { // docker/ itself
		t.Errorf("no %s in %s", want, &log)
	}
	if done, err := owned(root, who); !done || err != nil {
		t.Errorf("not done (%v)", err)
	}
	if n := foreign(t, outside, owner{0, os.Getegid()}); n != 0 {
		t.Error("a link led out of the tree")
	}

	// Whoever writes there as another user says so, and it is done again.
	if err := disown(t.Context(), dir); !errors.Is(err, below.ErrForeign) {
		t.Errorf("with a link among the images: %v", err)
	}
	must(t, os.Remove(filepath.Join(dir, blobsDir, "link")))
	must(t, disown(t.Context(), dir))
	blobs(t, dir, 21)
	if done, err := owned(root, who); done || err != nil {
		t.Errorf("done after another writer (%v)", err)
	}
	must(t, own(t.Context(), root, who, slog.New(slog.DiscardHandler)))
	if n := foreign(t, filepath.Join(dir, blobsDir), who); n != 0 {
		t.Errorf("%d are left", n)
	}
}

func TestOwnRefusesALink(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("/usr", filepath.Join(dir, blobsDir)))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer func() { _ = root.Close() }()
	if err := prepare(root, owner{os.Geteuid(), os.Getegid()}); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Errorf("error %v", err)
	}
}

// Data of root's is handed over before the first replica, and only while nobody uses it.
func TestDockerTakesOverRootsData(t *testing.T) {
	s := newStand(t, images.Registry(t))
	embedded := newEmbedded(t, EmbeddedConfig{Root: s.cfg.Root, HTTPSecret: s.cfg.HTTPSecret})
	location := upload(t, embedded)
	d := s.engine(t)
	user := "user-" + s.cfg.Volume
	docker(t, "run", "--detach", "--name", user, "--network", "none", "--volume", s.cfg.Volume+":/var/lib/registry", s.cfg.Image)
	t.Cleanup(func() { docker(t, "rm", "--force", "--volumes", user) })
	if _, err := d.Open(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "docker stop "+user) {
		t.Errorf("error %v", err)
	}
	if resp := answer(t, embedded, http.MethodGet, location.RequestURI(), nil); resp.StatusCode != http.StatusNoContent {
		t.Error(resp.Status)
	}
	docker(t, "stop", "--time", "1", user)
	e := open(t, d)
	resp := answer(t, over(t, e), http.MethodPatch, location.RequestURI(), strings.NewReader("part"))
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("%s: %s", resp.Status, text(t, resp))
	}
}
