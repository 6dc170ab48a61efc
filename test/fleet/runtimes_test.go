//go:build linux

package fleet_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// aliceID is a user of this host alone, who has a rootless engine.
const aliceID = 51234

// runtimes is one host on which every runtime is that Debian has.
type runtimes struct {
	*fleet
	h       *host
	clients []*puller
}

// puller is a runtime's way to pull, which fetches blobs of the image each time.
type puller struct {
	name string
	pull func(n int) error

	n, failed int
	failures  []string
}

// TestRuntimes: podman, buildah, skopeo, containerd and Docker refuse the registry
// before the agent comes, and pull through rotations afterwards; a rootless engine's
// directory is its user's; leave gives everything back.
func TestRuntimes(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("every runtime: " + why)
	}
	t.Parallel()
	begin := time.Now()
	r := newRuntimes(t)
	r.testRefused(t)
	before := r.tree(t) // podman has made files of its own by now
	token, err := r.server.command("token", "create", "-q")
	must(t, err)
	must(t, r.h.startAgent("--join", "registry.test:"+grpcPort, "--token", strings.TrimSpace(token), "--name", r.h.name))
	r.waitTrusted(t, time.Minute)
	must(t, r.h.login(domain, user, password))
	must(t, r.h.push(r.run.path("image.tar"), loadedImage, appImage))
	r.scenario(t, "every runtime pulls through rotations", r.testRotations)
	r.scenario(t, "a rootless engine's directory is its user's", r.testRootless)
	r.scenario(t, "what hides the CA is mended", r.testHidden)
	r.scenario(t, "leave restores", func(t *testing.T) { r.testLeave(t, before) })
	for _, c := range r.clients {
		t.Logf("%s: pulls %d, failed %d", c.name, c.n, c.failed)
	}
	t.Logf("every runtime: %v in all", time.Since(begin).Round(time.Second))
}

func newRuntimes(t *testing.T) *runtimes {
	t.Helper()
	f := emptyFleet(t)
	must(t, f.build())
	must(t, writeImage(f.run.path("image.tar")))
	must(t, f.makeNetwork())
	var err error
	f.server, err = newServer(f.net)
	must(t, err)
	h, err := newHost(f.net, 1, fmt.Sprintf("127.0.0.1 localhost\n%s registry.test\n", f.run.addr(serverAddr)))
	must(t, err)
	f.hosts = []*host{h}
	r := &runtimes{fleet: f, h: h}
	r.furnish(t)
	must(t, h.startEngine())
	r.findClients(t)
	_, err = f.server.commandInput(password+"\n", "init", "--domain", domain, "--user", user, "--password-stdin")
	must(t, err)
	must(t, f.server.start("trustcast", nil))
	return r
}

// furnish gives the host its own directories of the other runtimes.
func (r *runtimes) furnish(t *testing.T) {
	t.Helper()
	write := func(path, content string) {
		must(t, os.MkdirAll(filepath.Dir(r.h.path(path)), 0o755))
		must(t, os.WriteFile(r.h.path(path), []byte(content), 0o644))
	}
	write("etc/passwd", fmt.Sprintf("root:x:0:0::/root:/bin/sh\nalice:x:%d:%d::/home/alice:/bin/sh\n", aliceID, aliceID))
	write("etc/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	write("etc/containerd/config.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n")
	must(t, os.MkdirAll(r.h.path("home"), 0o755))
	must(t, os.MkdirAll(r.h.path("home/alice/.local/share/docker"), 0o700))
	must(t, filepath.WalkDir(r.h.path("home/alice"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, aliceID, aliceID)
	}))
	for _, file := range []string{"etc/subuid", "etc/subgid"} {
		write(file, "alice:600000:65536\n")
	}
	for _, path := range []string{"home", "etc/passwd", "etc/subuid", "etc/subgid", "etc/containers", "etc/containerd"} {
		if _, err := os.Stat("/" + path); err == nil { // it cannot be bound over otherwise, and is not seen either
			r.h.private = append(r.h.private, path)
		}
	}
	r.h.runtimes = "auto"
}

// findClients are those whose programs are here.
func (r *runtimes) findClients(t *testing.T) {
	t.Helper()
	creds := user + ":" + password
	image := "docker://" + appImage
	r.clients = []*puller{{name: "docker", pull: func(int) error { return r.h.pull(appImage) }}}
	for _, c := range []struct {
		name string
		args func(dir string) []string
	}{
		{"podman", func(dir string) []string {
			return []string{"--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "pull", "--quiet", "--creds", creds, image}
		}},
		{"buildah", func(dir string) []string {
			return []string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs", "pull", "--quiet", "--creds", creds, image}
		}},
		{"skopeo", func(dir string) []string {
			return []string{"copy", "--quiet", "--src-creds", creds, image, "dir:" + dir + "/image"}
		}},
	} {
		if _, err := exec.LookPath(c.name); err != nil {
			t.Logf("needs %s: Debian has a package", c.name)
			continue
		}
		r.clients = append(r.clients, &puller{name: c.name, pull: func(n int) error {
			dir := r.h.path(c.name + "-" + strconv.Itoa(n))
			defer func() { _ = os.RemoveAll(dir) }()
			must(t, os.MkdirAll(dir, 0o755))
			return r.inside(append([]string{c.name}, c.args(dir)...)...)
		}})
	}
	if c := r.rootless(t); c != nil {
		r.clients = append(r.clients, c)
	}
	if _, err := exec.LookPath("ctr"); err != nil {
		t.Log("needs ctr: Debian has it in containerd")
		return
	}
	r.clients = append(r.clients, r.containerd(t))
}

// inside runs a client on the host, where it finds no other host's state and leaves none.
func (r *runtimes) inside(argv ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), pullBound)
	defer cancel()
	script := `mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mount -t tmpfs none /var/tmp && exec "$@"`
	_, err := r.run.output(ctx, nil, "", append(append(r.h.enter(), "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"), argv...)...)
	return err
}

// containerd starts the host's own, and pulls with ctr as its CRI would: from the
// directory that config_path names.
func (r *runtimes) containerd(t *testing.T) *puller {
	t.Helper()
	socket := r.h.path("c.sock")
	argv := append(r.h.enter(), "containerd", "--address", socket, "--root", r.h.path("containerd", "root"), "--state", r.h.path("containerd", "state"))
	p, err := r.run.start("containerd", nil, argv...)
	must(t, err)
	t.Cleanup(func() {
		if err := p.terminate(); err != nil {
			t.Error(err)
		}
	})
	ctr := func(args ...string) error {
		ctx, cancel := context.WithTimeout(context.Background(), pullBound)
		defer cancel()
		_, err := r.run.output(ctx, nil, "", append(append(r.h.enter(), "ctr", "--address", socket), args...)...)
		return err
	}
	must(t, until(30*time.Second, "containerd", func() (bool, string) {
		err := ctr("version")
		return err == nil, fmt.Sprint(err, "\n", tail(p.log, 10))
	}))
	return &puller{name: "containerd", pull: func(int) error {
		if err := ctr("image", "rm", "--sync", appImage); err != nil {
			return err
		}
		return ctr("image", "pull", "--hosts-dir", "/etc/containerd/certs.d", "--snapshotter", "native", "--user", user+":"+password, appImage)
	}}
}

// testRefused is the negative control.
func (r *runtimes) testRefused(t *testing.T) {
	t.Helper()
	for _, c := range r.clients {
		if err := c.pull(0); err == nil || !strings.Contains(err.Error(), "x509") {
			t.Errorf("%s without the CA: %v, want an x509 error", c.name, err)
		}
	}
}

func (c *puller) once() {
	c.n++
	if err := c.pull(c.n); err != nil {
		c.failed++
		c.failures = append(c.failures, err.Error())
	}
}

// testRotations pulls with all clients, again and again, while the CA rotates twice.
func (r *runtimes) testRotations(t *testing.T) {
	before, err := r.server.blobGets()
	must(t, err)
	stop := make(chan struct{})
	var all sync.WaitGroup
	pulled := make(chan struct{}, len(r.clients))
	for _, c := range r.clients {
		all.Go(func() {
			for {
				c.once()
				if c.n == 1 {
					pulled <- struct{}{}
				}
				select {
				case <-stop:
					c.once() // the last begins after the last rotation
					return
				default:
				}
			}
		})
	}
	for range r.clients {
		<-pulled
	}
	for range 2 {
		n := r.beginRotation(t)
		must(t, r.server.wait(time.Minute, fmt.Sprintf("end of rotation %d", n), func(st status) bool { return st.number() == n && r.trusted(st) }))
	}
	close(stop)
	all.Wait()
	for _, c := range r.clients {
		if c.failed > 0 {
			t.Errorf("%s: %d of %d pulls failed:\n%s", c.name, c.failed, c.n, strings.Join(c.failures, "\n"))
		}
	}
	pulls := 0
	for _, c := range r.clients {
		pulls += c.n
	}
	if blobs, err := r.server.blobGets(); err != nil || blobs-before < pulls { // not all of them keep nothing of the pull before
		t.Errorf("the edge served %d blobs for %d pulls (%v): some fetched nothing", blobs-before, pulls, err)
	}
}

// testRootless: the CA is there, as a file of the user, and nothing else is anybody
// else's.
func (r *runtimes) testRootless(t *testing.T) {
	want, err := os.ReadFile(r.h.certFile())
	must(t, err)
	got, err := os.ReadFile(r.h.path("home/alice/.config/docker/certs.d", domain, "ca.crt"))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the rootless engine's CA is another one than Docker's")
	}
	must(t, filepath.WalkDir(r.h.path("home/alice"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == r.h.path("home/alice/run") { // her engine's own
			return fs.SkipDir
		}
		info, err := e.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != aliceID {
			t.Errorf("%s belongs to %d", path, info.Sys().(*syscall.Stat_t).Uid)
		}
		return err
	}))
}

// testHidden empties podman's directory for the registry, which hides Docker's then:
// podman refuses, until the agent has put the CA back.
func (r *runtimes) testHidden(t *testing.T) {
	file := r.h.path("etc/containers/certs.d", domain, "ca.crt")
	release := r.hold(t, r.h)
	must(t, os.Remove(file))
	for _, c := range r.clients {
		err := c.pull(-1)
		switch c.name {
		case "docker", "rootless docker", "containerd":
			must(t, err)
		default:
			if err == nil || !strings.Contains(err.Error(), "x509") {
				t.Errorf("%s with an empty directory: %v, want an x509 error", c.name, err)
			}
		}
	}
	release()
	must(t, until(time.Minute, "the CA for podman", func() (bool, string) {
		_, err := os.Stat(file)
		return err == nil, fmt.Sprint(err)
	}))
	for _, c := range r.clients {
		must(t, c.pull(-1))
	}
}

func (r *runtimes) testLeave(t *testing.T, before map[string]string) {
	must(t, r.h.stopAgent(syscall.SIGTERM))
	_, err := r.h.agentCommand("leave")
	must(t, err)
	after := r.tree(t)
	for path, was := range before {
		if after[path] != was {
			t.Errorf("%s was %q and is %q", path, was, after[path])
		}
	}
	for path := range after {
		if _, was := before[path]; !was {
			t.Errorf("%s is left", path)
		}
	}
	r.testRefused(t)
}

// tree describes what the runtimes' directories hold.
func (r *runtimes) tree(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, top := range []string{"etc-docker", "etc/containers", "etc/containerd", "home"} {
		must(t, filepath.WalkDir(r.h.path(top), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if path == r.h.path("home/alice/run") {
				return fs.SkipDir
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			all[path] = fmt.Sprint(info.Mode(), " ", info.Sys().(*syscall.Stat_t).Uid)
			if info.Mode().IsRegular() {
				data, err := os.ReadFile(path)
				all[path] += "\n" + string(data)
				return err
			}
			return nil
		}))
	}
	return all
}
