//go:build linux

package packages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/test/images"
)

// placeAddr is the address of a place, which no other one can reach. It is not on
// 127.0.0.0/8, which Docker does not verify.
const placeAddr = "10.77.0.1"

// place is a system in a root directory of its own, with namespaces of its own for
// processes, mounts and network. All of it ends with the test, however that ends.
type place struct {
	test   *testing.T // ends it
	root   string
	pid    int           // of its first process, which ends when the test does
	ended  chan struct{} // closed when that has
	engine bool          // it has a Docker engine
}

// debian is a place with a minimal Debian in it, made by debootstrap, that has booted.
func debian(t *testing.T) *place {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(root, 0o755))
	run(t, "tar", "-x", "-f", bootstrapped(t), "-C", root)
	p := &place{test: t, root: root}
	p.boot(t)
	p.name(t)
	return p
}

// boot switches a Debian on, at first or after off.
func (p *place) boot(t *testing.T) {
	t.Helper()
	group, mount := cgroup(p.test)
	// Units get file systems of their own, for which the root must be one.
	p.begin(t, `mount --bind "$1" "$1"
cd "$1"
mount -t sysfs sysfs "$1/sys"
mount -t tmpfs tmpfs "$1/run"
mount -t tmpfs tmpfs "$1/tmp"
echo $$ >`+group+`/cgroup.procs
exec unshare --cgroup sh -ec '`+mount+`
exec chroot "$1" env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --show-status=no' sh "$1"`)
	until(t, 3*time.Minute, "Debian has booted", func() (bool, string) {
		out, err := p.shell("systemctl is-system-running || true", "")
		return out == "running\n" || out == "degraded\n", fmt.Sprint(out, err)
	})
}

// off switches a Debian off, in order.
func (p *place) off(t *testing.T) {
	t.Helper()
	_, err := p.shell("systemctl poweroff", "") // may be cut short by what it does
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Fatalf("still on a minute after poweroff: %v", err)
	}
}

// cgroup makes a group for the services of a place, removed with all in it at the
// end, and says how it is mounted there.
func cgroup(t *testing.T) (dir, mount string) {
	t.Helper()
	top, mount := "/sys/fs/cgroup", `mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"`
	if _, err := os.Stat(filepath.Join(top, "cgroup.controllers")); err != nil {
		top, mount = filepath.Join(top, "systemd"), `mount -t tmpfs tmpfs "$1/sys/fs/cgroup"
mkdir "$1/sys/fs/cgroup/systemd"
mount -t cgroup -o none,name=systemd cgroup "$1/sys/fs/cgroup/systemd"`
	}
	if _, err := os.Stat(filepath.Join(top, "cgroup.procs")); err != nil {
		images.Skip(t, "needs control groups, to boot systemd: "+err.Error())
	}
	dead, err := filepath.Glob(filepath.Join(top, groupName+"*"))
	must(t, err)
	for _, dir := range dead { // of a test that was killed
		if pid := strings.TrimPrefix(filepath.Base(dir), groupName); syscall.Access("/proc/"+pid, 0) != nil {
			removeGroup(t, dir)
		}
	}
	dir = filepath.Join(top, fmt.Sprint(groupName, os.Getpid()))
	if _, err := os.Stat(dir); err == nil { // of the place before it was switched off
		removeGroup(t, dir)
	}
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { removeGroup(t, dir) })
	return dir, mount
}

const groupName = "trustcast-test-"

// removeGroup removes a group whose processes have been killed.
func removeGroup(t *testing.T, dir string) {
	t.Helper()
	until(t, time.Minute, dir+" removed", func() (bool, string) {
		out, err := try("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";")
		_, gone := os.Stat(dir)
		return gone != nil, fmt.Sprint(out, err)
	})
}

// overlay is a place with what is installed on this machine; what is changed there
// changes nothing here, and is in memory: an overlay may not lie on another one.
func overlay(t *testing.T) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{test: t, root: filepath.Join(dir, "root")}
	p.begin(t, fmt.Sprintf(`mount -t tmpfs tmpfs %[1]s
cd %[1]s
mkdir root upper work
mount -t overlay overlay -o lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work root
mount --rbind /dev root/dev
mount -t tmpfs tmpfs root/run
mount -t tmpfs tmpfs root/tmp
mount -t proc proc root/proc
touch root/run/up
exec chroot root sleep infinity`, dir))
	until(t, time.Minute, "a copy of this machine", func() (bool, string) {
		_, err := os.Stat(p.path("/run/up"))
		return err == nil, fmt.Sprint(err)
	})
	p.name(t)
	return p
}

// begin starts a place's first process: a script that gets the root directory. The
// first process of a PID namespace takes all others with it, and it ends with the test.
func (p *place) begin(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", `mount -t proc proc /proc
ip link set lo up
ip addr add `+placeAddr+`/32 dev lo
`+script, "sh", p.root)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
		Unshareflags: syscall.CLONE_NEWNS, // makes all mounts private
		Pdeathsig:    syscall.SIGKILL,
	}
	said := &buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = time.Second
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // Pdeathsig is about the thread: this one is there as long as the place
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	must(t, <-started)
	p.test.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if p.test.Failed() {
			p.test.Logf("the place said:\n%s", said)
		}
	})
	p.pid, p.ended = cmd.Process.Pid, ended
}

// path is where a file of the place is seen from outside.
func (p *place) path(name string) string {
	return fmt.Sprintf("/proc/%d/root%s", p.pid, strings.TrimSuffix(name, "/"))
}

// name has the place know the registry by the name that it has in the documentation.
func (p *place) name(t *testing.T) {
	t.Helper()
	p.sh(t, "printf '127.0.0.1 localhost\n"+placeAddr+" registry.example.com\n' >/etc/hosts")
}

// argv enters the place.
func (p *place) argv(script string) []string {
	return []string{"nsenter", "--target", strconv.Itoa(p.pid), "--mount", "--pid", "--net",
		"chroot", p.root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-ec", script}
}

// sh runs a script in the place and returns what it printed.
func (p *place) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := p.shell(script, "")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (p *place) shell(script, stdin string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	argv := p.argv(script)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = waitDelay
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", script, err, out, &stderr)
	}
	return string(out), err
}

// waitDelay is for those that a killed nsenter leaves behind: they hold its output open,
// and end with their place.
const waitDelay = 2 * time.Second

// process is a program that runs in a place.
type process struct {
	cmd *exec.Cmd
	log buffer
}

// start runs a script until stop or the end of the test.
func (p *place) start(t *testing.T, script string) *process {
	t.Helper()
	argv := p.argv(script)
	b := &process{cmd: exec.Command(argv[0], argv[1:]...)}
	b.cmd.WaitDelay = waitDelay
	b.cmd.Stdout, b.cmd.Stderr = &b.log, &b.log
	must(t, b.cmd.Start())
	t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", script, b.log.String())
		}
	})
	return b
}

// bootstrapAge is how long a minimal Debian is good enough to be used again.
const bootstrapAge = 7 * 24 * time.Hour

// bootstrapped is an archive of a minimal Debian, kept in /tmp for the next run. The
// test is skipped where there is none to be had.
func bootstrapped(t *testing.T) string {
	t.Helper()
	need(t, "debootstrap", "tar")
	archive := filepath.Join(os.TempDir(), "trustcast-test-bookworm-systemd.tar")
	// It is booted as root, and anybody may put files into /tmp.
	if info, err := os.Lstat(archive); err == nil && info.Mode() == 0o600 && info.Sys().(*syscall.Stat_t).Uid == 0 && time.Since(info.ModTime()) < bootstrapAge {
		return archive
	}
	dir := t.TempDir()
	begin := time.Now()
	bootstrap := func() (string, error) {
		return try("timeout", "300", "debootstrap", "--variant=minbase", "--include=systemd", "bookworm", filepath.Join(dir, "root"), "http://deb.debian.org/debian")
	}
	out, err := bootstrap()
	if err != nil { // a mirror may be away for a moment
		must(t, os.RemoveAll(filepath.Join(dir, "root")))
		out, err = bootstrap()
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		images.Skip(t, fmt.Sprintf("needs a Debian mirror: debootstrap: %v: %s", err, strings.Join(lines[max(0, len(lines)-3):], "; ")))
	}
	made := filepath.Join(dir, "root.tar")
	run(t, "tar", "-c", "-f", made, "-C", filepath.Join(dir, "root"), "--exclude=./var/cache/apt/archives/*.deb", ".")
	must(t, os.Chmod(made, 0o600))
	must(t, os.Rename(made, archive))
	t.Logf("debootstrap took %v", time.Since(begin).Round(time.Second))
	return archive
}

// take copies a file of the test into the place, and returns where it is there.
func (p *place) take(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	_, err = p.shell("cat >/root/"+filepath.Base(path), string(data))
	must(t, err)
	return "/root/" + filepath.Base(path)
}
