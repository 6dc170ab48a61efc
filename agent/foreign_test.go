package agent

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// portrait is all there is to say of what lies in a directory: content, type and mode,
// owner, links; of files also when they were changed last, and which inode they are.
func portrait(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			text += fmt.Sprint(" -> ", to, " ", stat.Ino, err)
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			text += fmt.Sprintf(" %x %d %v %v", sha256.Sum256(data), stat.Ino, info.ModTime(), err)
		}
		rel, _ := filepath.Rel(dir, path)
		out[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// makeForeign fills certs.d with what other people keep there, some of it under our
// registry's name.
func makeForeign(t *testing.T, certsDir string) {
	t.Helper()
	ours, other := filepath.Join(certsDir, "registry.test:5000"), filepath.Join(certsDir, "other.test:5000")
	long := time.Now().Add(-300 * 24 * time.Hour)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(other, 0o750))
	must(os.MkdirAll(ours, 0o711))
	for path, mode := range map[string]fs.FileMode{
		filepath.Join(ours, "ca.crt"):        0o644, // by hand, years ago
		filepath.Join(ours, "corporate.crt"): 0o444,
		filepath.Join(ours, "client.cert"):   0o640,
		filepath.Join(ours, "client.key"):    0o600,
		filepath.Join(ours, "README"):        0o666,
		filepath.Join(ours, ".ca.crt.swp"):   0o600,
		filepath.Join(other, "ca.crt"):       0o600,
		filepath.Join(certsDir, "notes.txt"): 0,
	} {
		must(os.WriteFile(path, []byte("foreign: "+path), 0o600))
		if os.Geteuid() == 0 {
			must(os.Chown(path, 12345, 54321))
		}
		must(os.Chmod(path, mode))
		must(os.Chtimes(path, long, long))
	}
	must(os.Symlink("corporate.crt", filepath.Join(ours, "link.crt")))
	must(os.Symlink("other.test:5000", filepath.Join(certsDir, "mirror.test:5000")))
}

// TestForeignFilesAreNeverTouched: whatever other people keep in certs.d is the same to
// the last bit after install, a hundred rotations (two bundles each), repairs and leave.
func TestForeignFilesAreNeverTouched(t *testing.T) {
	h := newDockerHost(t)
	h.host.Places[0].Dir = filepath.Join(t.TempDir(), "certs.d")
	makeForeign(t, h.host.Places[0].Dir)
	before := portrait(t, h.host.Places[0].Dir)
	ourFile := filepath.Join("registry.test:5000", "trustcast-ca.crt")
	same := func(when string) {
		t.Helper()
		now := portrait(t, h.host.Places[0].Dir)
		if now[ourFile] == "" {
			t.Errorf("%s: ours is not there", when)
		}
		delete(now, ourFile)
		if diff := cmp.Diff(before, now); diff != "" {
			t.Fatalf("%s, foreign files differ:\n%s", when, diff)
		}
	}
	last, pair := authorityFor(t, "registry.test")
	reconcile := func(generation uint64) {
		t.Helper()
		offer := offerOf(generation, generation, pair.Leaf, last)
		if generation%2 == 0 {
			next, nextPair := authorityFor(t, "registry.test")
			offer = offerOf(generation, generation, pair.Leaf, last, next)
			last, pair = next, nextPair
		}
		if problem := h.reconcile(offer); problem != "" {
			t.Fatal(problem)
		}
	}
	reconcile(1)
	same("after the first install")
	const rotations = 100
	for g := uint64(2); g < 2+2*rotations; g++ {
		reconcile(g)
	}
	same("after a hundred rotations")
	path := filepath.Join(h.host.Places[0].Dir, ourFile)
	for what, harm := range map[string]func() error{
		"deleted": func() error { return os.Remove(path) },
		"changed": func() error { return os.WriteFile(path, []byte("x"), 0o644) },
		"closed":  func() error { return os.Chmod(path, 0) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if problem := h.reconcile(nil); problem != "" || h.disturbed() {
			t.Fatalf("ours was %s and is not mended: %s", what, problem)
		}
	}
	if h.repairs.total != 3 {
		t.Errorf("%d repairs are counted", h.repairs.total)
	}
	same("after repairs")

	if err := h.store.write(identityFile, h.enrolment); err != nil {
		t.Fatal(err)
	}
	left, err := Leave(t.Context(), Config{DataDir: h.cfg.DataDir, DockerCertsDir: h.cfg.DockerCertsDir}, "")
	if err != nil || len(left.Removed) != 1 {
		t.Fatalf("left: %+v, %v", left, err)
	}
	if diff := cmp.Diff(before, portrait(t, h.host.Places[0].Dir)); diff != "" {
		t.Errorf("after leave:\n%s", diff)
	}

	if err := os.Chtimes(filepath.Join(h.host.Places[0].Dir, "notes.txt"), time.Time{}, time.Now()); err != nil { // the control
		t.Fatal(err)
	}
	if cmp.Equal(before, portrait(t, h.host.Places[0].Dir)) {
		t.Error("a file that was touched looks the same: that shows nothing")
	}
}
