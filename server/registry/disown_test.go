package registry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/test/images"
)

// intruderVariable has the directory that an intruder is in, and the key it is after.
const intruderVariable = "TRUSTCAST_TEST_INTRUDER"

// intruder is a process of the replicas' user, in a directory among the images.
type intruder struct {
	t     *testing.T
	input io.Writer
	lines *bufio.Reader
}

func newIntruder(t *testing.T, dir, key string) *intruder {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestIntruder$")
	cmd.Env = append(os.Environ(), intruderVariable+"="+dir+"|"+key)
	input, err := cmd.StdinPipe()
	must(t, err)
	output, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // "signal: killed"
	})
	i := &intruder{t, input, bufio.NewReader(output)}
	if line := i.heard(); line != "inside" {
		t.Fatalf("the intruder said %q", line)
	}
	return i
}

func (i *intruder) heard() string {
	i.t.Helper()
	line, err := i.lines.ReadString('\n')
	must(i.t, err)
	return strings.TrimSpace(line)
}

// try lets it do something, and returns whether it could.
func (i *intruder) try(what string) bool {
	i.t.Helper()
	_, err := fmt.Fprintln(i.input, what)
	must(i.t, err)
	switch line := i.heard(); {
	case line == what+`: "<nil>"`:
		return true
	case !strings.Contains(line, "permitted") && !strings.Contains(line, "denied"):
		i.t.Errorf("the intruder failed otherwise: %s", line)
	}
	return false
}

// TestIntruder is the process. It goes in as root, and can do from there what the
// replicas' user may.
func TestIntruder(t *testing.T) {
	dir, key, ok := strings.Cut(os.Getenv(intruderVariable), "|")
	if !ok {
		t.Skip("for newIntruder")
	}
	must(t, os.Chdir(dir))
	must(t, syscall.Setgroups(nil))
	must(t, syscall.Setgid(unprivileged))
	must(t, syscall.Setuid(unprivileged))
	tricks := map[string]func() error{
		"pass":    func() error { return errors.Join(os.Mkdir("mine", 0o700), os.Remove("mine")) },
		"replace": func() error { return errors.Join(os.Remove("data"), os.Symlink(key, "data")) },
		"rename":  func() error { return os.Rename("registry", "other") },
		"open":    func() error { return os.Chmod(".", 0o777) },
		"write":   func() error { return os.WriteFile("data", nil, 0o600) },
		"above":   func() error { return os.Mkdir("../mine", 0o700) },
		"in new":  func() error { return os.Mkdir("new/mine", 0o700) },
	}
	fmt.Println("inside")
	for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
		fmt.Printf("%s: %q\n", asked.Text(), fmt.Sprint(tricks[asked.Text()]())) // in one line
	}
}

// handOver gives all images to the replicas' user, as a server with the Docker engine.
func handOver(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files to another user")
	}
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	who := owner{unprivileged, unprivileged}
	must(t, prepare(root, who))
	must(t, own(t.Context(), root, who, slog.New(slog.DiscardHandler)))
}

// pushed is a shelf of the replicas' with an image, and the blob of its first layer.
func pushed(t *testing.T) (s *shelf, blob, file string) {
	t.Helper()
	s = newShelf(t)
	layers, err := s.push("app:v1").Layers()
	must(t, err)
	digest, err := layers[0].Digest()
	must(t, err)
	handOver(t, s.root)
	return s, "/v2/app/blobs/" + digest.String(), filepath.Join(s.root, "docker/registry/v2/blobs/sha256", digest.Hex[:2], digest.Hex, "data")
}

// A replica that still runs, in foreign hands, changes nothing from where it is once an
// embedded registry serves: it would have that read keys.
func TestEmbeddedShutsReplicasOut(t *testing.T) {
	s, blob, file := pushed(t)
	secret := plant(t, s)
	inside := newIntruder(t, filepath.Dir(file), secret)
	must(t, os.Chmod(filepath.Dir(file), 0o777)) // what the owner can do at any time
	must(t, os.Chmod(filepath.Dir(filepath.Dir(file)), 0o777))
	must(t, os.Chmod(file, 0o666))
	inherited := passOn(t, filepath.Dir(file))
	if !inside.try("pass") {
		t.Fatal("the intruder cannot do what the replicas' user may")
	}
	content, err := os.ReadFile(file)
	must(t, err)

	e := newEmbedded(t, EmbeddedConfig{Root: s.root})
	for _, trick := range []string{"replace", "write", "above", "open", "pass"} {
		if inside.try(trick) {
			t.Errorf("the intruder could %s", trick)
		}
	}
	resp := answer(t, e, http.MethodGet, blob, nil)
	if got, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(got, content) {
		t.Errorf("%s, %v: %d bytes, the key: %v", resp.Status, err, len(got), string(got) == "secret")
	}
	if n := foreign(t, filepath.Join(s.root, blobsDir), owner{os.Geteuid(), os.Getegid()}); n != 0 {
		t.Errorf("%d files are somebody else's", n)
	}
	if inherited {
		must(t, os.Mkdir(filepath.Join(filepath.Dir(file), "new"), 0o777)) //nolint:gosec // as distribution does it
		if inside.try("in new") {
			t.Error("what is made now is the intruder's to write, by the rights that it left")
		}
	}
}

// passOn has a directory give the replicas' user all rights in what is made there, and
// says whether the file system can do that.
func passOn(t *testing.T, dir string) bool {
	t.Helper()
	const none = ^uint32(0)
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, entry := range []struct {
		tag uint16
		id  uint32
	}{{1, none}, {2, unprivileged}, {4, none}, {16, none}, {32, none}} {
		acl = binary.LittleEndian.AppendUint16(acl, entry.tag)
		acl = binary.LittleEndian.AppendUint16(acl, 7)
		acl = binary.LittleEndian.AppendUint32(acl, entry.id)
	}
	err := unix.Setxattr(dir, "system.posix_acl_default", acl, 0)
	if err == unix.EOPNOTSUPP {
		return false
	}
	must(t, err)
	return true
}

// Taking the images back may be interrupted anywhere: it is not taken for done, and
// what was taken stays so.
func TestDisownGoesOnAfterAnInterruption(t *testing.T) {
	s, _, _ := pushed(t)
	docker := filepath.Join(s.root, blobsDir)
	self := owner{os.Geteuid(), os.Getegid()}
	inside := newIntruder(t, docker, "")
	if !inside.try("pass") {
		t.Fatal("the intruder cannot do what the replicas' user may")
	}
	all := foreign(t, docker, self)
	root, err := os.OpenRoot(s.root)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	for n := 1; n < all; n += all / 4 {
		err := takeAll(&stopAfter{t.Context(), n}, root, self)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "a new start goes on") {
			t.Fatalf("error %v", err)
		}
		if inside.try("rename") || inside.try("pass") {
			t.Errorf("after %d of %d the intruder can move what is looked through", n, all)
		}
		if done, err := owned(root, self); done || err != nil {
			t.Errorf("%d of %d count as done (%v)", n, all, err)
		}
		if left := foreign(t, docker, self); left == 0 || n > 1 && left >= all {
			t.Errorf("%d of %d are left after %d", left, all, n)
		}
	}
	// Or after all of it: nothing is marked before it was looked through.
	must(t, takeAll(t.Context(), root, self))
	if done, err := owned(root, self); done || err != nil {
		t.Errorf("it counts as done before the last look (%v)", err)
	}
	must(t, disown(t.Context(), s.root))
	if done, err := owned(root, self); !done || err != nil || foreign(t, docker, self) != 0 {
		t.Errorf("not done (%v)", err)
	}
}

// What somebody has put there since is not marked as this process's.
func TestDisownLooksAgain(t *testing.T) {
	s, _, file := pushed(t)
	root, err := os.OpenRoot(s.root)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	self := owner{os.Geteuid(), os.Getegid()}
	must(t, takeAll(t.Context(), root, self))
	must(t, allTaken(t.Context(), root, self))
	must(t, os.Chown(file, unprivileged, unprivileged))
	if err := allTaken(t.Context(), root, self); err == nil || !strings.Contains(err.Error(), "belongs to somebody else again") {
		t.Errorf("error %v", err)
	}
}

// Images are not taken from containers that work on them: who runs them hears which.
func TestEmbeddedLeavesRunningReplicas(t *testing.T) {
	s := newStand(t, images.Registry(t))
	e := open(t, s.engine(t))
	upload(t, over(t, e))
	reader := "reader-" + s.cfg.Volume
	docker(t, "run", "--detach", "--name", reader, "--network", "none", "--volume", s.cfg.Volume+":/var/lib/registry:ro", s.cfg.Image)
	t.Cleanup(func() { docker(t, "rm", "--force", "--volumes", reader) })
	_, err := NewEmbedded(t.Context(), EmbeddedConfig{Root: s.cfg.Root})
	if err == nil || !strings.Contains(err.Error(), "docker stop ") || !strings.Contains(err.Error(), e.ID) || strings.Contains(err.Error(), reader) {
		t.Fatalf("error %v", err)
	}
	if n := foreign(t, filepath.Join(s.cfg.Root, blobsDir), owner{unprivileged, unprivileged}); n != 0 {
		t.Errorf("%d files were taken all the same", n)
	}
	upload(t, over(t, e))
	docker(t, strings.Fields(strings.Split(err.Error(), "`")[1])[1:]...)
	newEmbedded(t, EmbeddedConfig{Root: s.cfg.Root})
	// Without Docker, what is taken is safe all the same.
	handOver(t, s.cfg.Root)
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none"))
	newEmbedded(t, EmbeddedConfig{Root: s.cfg.Root})
}
