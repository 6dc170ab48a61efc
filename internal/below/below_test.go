package below

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open makes a directory beside a secret, with links to it, a pipe and a file.
func open(t *testing.T) (*Dir, string) {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "docker")
	must(t, os.MkdirAll(filepath.Join(top, "state"), 0o700))
	must(t, os.WriteFile(filepath.Join(top, "state", "key"), []byte("secret"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "sub", "file"), []byte("content"), 0o600))
	must(t, os.Symlink("../state", filepath.Join(dir, "up")))
	must(t, os.Symlink("../../state/key", filepath.Join(dir, "sub", "key")))
	must(t, os.Symlink("/etc/hostname", filepath.Join(dir, "sub", "absolute")))
	must(t, os.Symlink("sub/file", filepath.Join(dir, "within")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	d, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d, top
}

func TestNoWayOut(t *testing.T) {
	t.Run("in one step", func(t *testing.T) {
		d, top := open(t)
		if _, _, err := d.openFile("sub/file"); err != nil {
			t.Skipf("not on this kernel: %v", err)
		}
		noWayOut(t, d, top)
	})
	t.Run("step by step", func(t *testing.T) {
		d, top := open(t)
		d.conn = nil
		noWayOut(t, d, top)
	})
}

func noWayOut(t *testing.T, d *Dir, top string) {
	if content, err := d.Read("sub/file", 100); err != nil || string(content) != "content" {
		t.Errorf("the file: %q, %v", content, err)
	}
	for _, name := range []string{"up/key", "sub/key", "sub/absolute", "within", "pipe", "../state/key", "/etc/hostname", "up", "sub"} {
		began := time.Now()
		if content, err := d.Read(name, 100); err == nil {
			t.Errorf("%s was read: %q", name, content)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	if size, err := d.Size("sub/file"); err != nil || size != int64(len("content")) {
		t.Errorf("the file's size: %d, %v", size, err)
	}
	for _, name := range []string{"up/key", "sub/key", "within", "pipe", "sub", "../state/key", "missing"} {
		if size, err := d.Size(name); err == nil {
			t.Errorf("the size of %s: %d", name, size)
		}
		if f, err := d.File(name); err == nil {
			t.Errorf("%s was opened", f.Name())
		}
	}
	for _, name := range []string{"up", "within", "pipe", "sub/key"} {
		if _, err := d.Stat(name); !errors.Is(err, ErrForeign) {
			t.Errorf("Stat %s: %v", name, err)
		}
		if _, err := d.List(name); err == nil {
			t.Errorf("%s was listed", name)
		}
	}
	if _, err := d.Stat("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of what is not there: %v", err)
	}
	_ = d.Remove("up/key") // refused, or nothing
	must(t, d.Remove("up"))
	must(t, d.Remove("sub"))
	if _, err := os.Stat(filepath.Join(top, "state", "key")); err != nil {
		t.Errorf("the secret is gone: %v", err)
	}
	if _, err := d.Stat("sub"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("sub is still there: %v", err)
	}
}

func TestLimits(t *testing.T) {
	d, top := open(t)
	large := make([]byte, 3*smallFile)
	must(t, os.WriteFile(filepath.Join(top, "docker", "large"), large, 0o600))
	for _, limit := range []int64{smallFile, 3*smallFile - 1, 3 * smallFile} {
		if content, err := d.Read("large", limit); (err == nil) != (limit >= int64(len(large))) || err == nil && len(content) != len(large) {
			t.Errorf("with a limit of %d: %d bytes, %v", limit, len(content), err)
		}
	}
	if _, err := d.Read("sub/file", 7); err != nil {
		t.Error(err)
	}
	if _, err := d.Read("sub/file", 6); !errors.Is(err, ErrForeign) {
		t.Errorf("too large: %v", err)
	}
}

func TestCheck(t *testing.T) {
	d, _ := open(t)
	if err := d.Check(); !errors.Is(err, ErrForeign) {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"up", "within", "pipe", "sub/key", "sub/absolute"} {
		must(t, d.Remove(name))
	}
	must(t, d.Check())
	top := t.TempDir()
	must(t, os.Symlink(top, filepath.Join(top, "link")))
	if _, err := Open(filepath.Join(top, "link")); !errors.Is(err, ErrForeign) {
		t.Errorf("a directory that is a link: %v", err)
	}
}
