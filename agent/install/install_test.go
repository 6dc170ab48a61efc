package install

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trustcast/trustcast/certs"
)

func newPEM(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := certs.NewCA(certs.CATemplate{Names: names(t), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return certs.EncodePEM(ca.Cert)
}

func docker(dir string) Host { return Host{Places: []Place{{Runtime: RuntimeDocker, Dir: dir}}} }

func names(t *testing.T) []certs.Name {
	t.Helper()
	n, err := certs.ParseName("registry.test:443", certs.DefaultPort)
	if err != nil {
		t.Fatal(err)
	}
	return []certs.Name{n}
}

// plain is a name with the usual port.
func plain(t *testing.T) []certs.Name {
	t.Helper()
	n, err := certs.ParseName("registry.test:5000", certs.DefaultPort)
	if err != nil {
		t.Fatal(err)
	}
	return []certs.Name{n}
}

// tree reads a directory: path to content, directories to "/".
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			out[rel] = "/"
			return nil
		}
		data, err := os.ReadFile(path)
		out[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRoundTrip: install, read back, replace, remove; the directory is as it was.
func TestRoundTrip(t *testing.T) {
	root := t.TempDir()
	d := docker(filepath.Join(root, "docker", "certs.d"))
	before := tree(t, root)
	owned := d.Plan(names(t), Owned{})
	if len(owned.Files) != 2 { // port 443: with and without
		t.Fatalf("planned %v", owned.Files)
	}
	var last certs.Fingerprint
	for range 3 {
		pem := newPEM(t)
		if err := d.Apply(names(t), owned, pem); err != nil {
			t.Fatal(err)
		}
		for _, f := range d.Read(names(t), owned) {
			if f.Problem != "" || f.Fingerprint == "" || f.Fingerprint == last {
				t.Fatalf("read back %+v", f)
			}
		}
		last = d.Read(names(t), owned)[0].Fingerprint
	}
	if again := d.Plan(names(t), owned); len(again.Files) != len(owned.Files) || len(again.Dirs) != len(owned.Dirs) {
		t.Errorf("planned again: %+v, was %+v", again, owned)
	}
	removed, err := d.Remove(owned)
	if err != nil || len(removed) != 2 {
		t.Fatalf("removed %v, %v", removed, err)
	}
	after := tree(t, root)
	delete(after, "docker") // its parent is not ours to judge
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("not as it was:\n%s", diff)
	}
}

// TestForeignFilesStay: a ca.crt that somebody copied by hand is kept, ours goes
// beside it, and everything else is untouched, byte for byte.
func TestForeignFilesStay(t *testing.T) {
	dir := t.TempDir()
	d := docker(dir)
	write(t, filepath.Join(dir, "registry.test:443", "ca.crt"), "by hand")
	write(t, filepath.Join(dir, "registry.test:443", "corporate.crt"), "theirs")
	write(t, filepath.Join(dir, "other.test:5000", "ca.crt"), "another registry")
	before := tree(t, dir)
	owned := d.Plan(names(t), Owned{})
	for range 2 {
		if err := d.Apply(names(t), owned, newPEM(t)); err != nil {
			t.Fatal(err)
		}
	}
	during := tree(t, dir)
	for path, content := range before {
		if during[path] != content {
			t.Errorf("%s was changed", path)
		}
	}
	if during["registry.test:443/trustcast-ca.crt"] == "" || during["registry.test/ca.crt"] == "" {
		t.Errorf("ours is missing: %v", during)
	}
	if _, err := d.Remove(owned); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("not as it was:\n%s", diff)
	}
}

// TestDrift: whatever happens to the file, reading says so and applying mends it.
func TestDrift(t *testing.T) {
	d := docker(t.TempDir())
	owned, pem := d.Plan(names(t), Owned{}), newPEM(t)
	path := owned.Files[0]
	for what, harm := range map[string]func() error{
		"changed":   func() error { return os.WriteFile(path, newPEM(t), 0o644) },
		"truncated": func() error { return os.Truncate(path, 10) },
		"emptied":   func() error { return os.Truncate(path, 0) },
		"deleted":   func() error { return os.Remove(path) },
		"dir gone":  func() error { return os.RemoveAll(filepath.Dir(path)) },
	} {
		if err := d.Apply(names(t), owned, pem); err != nil {
			t.Fatal(err)
		}
		good := d.Read(names(t), owned)[0]
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if f := d.Read(names(t), owned)[0]; f.Problem == "" && f.Fingerprint == good.Fingerprint {
			t.Errorf("%s: not seen", what)
		}
		if err := d.Apply(names(t), owned, pem); err != nil {
			t.Fatal(err)
		}
		if f := d.Read(names(t), owned)[0]; f.Problem != "" || f.Fingerprint != good.Fingerprint {
			t.Errorf("%s: not mended: %+v", what, f)
		}
	}
}

// TestBreaks: what makes Docker fail every pull from the directory is seen and
// named; what does not is left alone.
func TestBreaks(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(dir string) error
		names string
	}{
		"nothing":         {func(string) error { return nil }, ""},
		"directory":       {func(dir string) error { return os.Mkdir(filepath.Join(dir, "x.crt"), 0o755) }, "x.crt"},
		"dangling":        {func(dir string) error { return os.Symlink("nowhere", filepath.Join(dir, "x.crt")) }, "x.crt"},
		"lone cert":       {func(dir string) error { return os.WriteFile(filepath.Join(dir, "c.cert"), nil, 0o644) }, "c.cert"},
		"lone key":        {func(dir string) error { return os.WriteFile(filepath.Join(dir, "c.key"), nil, 0o644) }, "c.key"},
		"a readme":        {func(dir string) error { return os.WriteFile(filepath.Join(dir, "README"), nil, 0o644) }, ""},
		"another garbage": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "y.crt"), []byte("x"), 0o644) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := docker(t.TempDir())
			owned := d.Plan(names(t), Owned{})
			if err := d.Apply(names(t), owned, newPEM(t)); err != nil {
				t.Fatal(err)
			}
			if err := c.make(filepath.Dir(owned.Files[0])); err != nil {
				t.Fatal(err)
			}
			problem := d.Read(names(t), owned)[0].Problem
			if (problem == "") != (c.names == "") || !strings.Contains(problem, c.names) {
				t.Errorf("problem %q, want it to name %q", problem, c.names)
			}
		})
	}
}

// TestCheck is a user who may not write what others own, and root, who may.
func TestCheck(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	dir, err := os.MkdirTemp("", "install") // that of a test is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	theirs := filepath.Join(dir, "theirs")
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(theirs, 0o755), os.Chown(theirs, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(uid int, path string) error {
		said := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETREUID, uintptr(uid), uintptr(uid), 0); errno != 0 {
				said <- errno
				return
			}
			said <- docker(path).Check()
		}()
		return <-said
	}
	for _, path := range []string{filepath.Join(dir, "certs.d"), filepath.Join(dir, "docker", "certs.d"), dir} {
		if err := as(nobody, path); err == nil || !strings.Contains(err.Error(), dir+" cannot be written (permission denied): run the agent as root") {
			t.Errorf("%s as somebody else: %v", path, err)
		}
		if err := as(0, path); err != nil {
			t.Errorf("%s as root: %v", path, err)
		}
	}
	if err := as(nobody, filepath.Join(theirs, "certs.d")); err != nil {
		t.Errorf("in a directory of their own: %v", err)
	}
}

const nobody = 65532
