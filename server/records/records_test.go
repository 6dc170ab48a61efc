package records

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type value struct {
	Text string `json:"text"`
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCompareAndSwap(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	rev, err := s.Put("hosts/a", 0, value{"one"})
	if err != nil || rev != 1 {
		t.Fatalf("create: %d, %v", rev, err)
	}
	for _, stale := range []uint64{0, 2} {
		if _, err := s.Put("hosts/a", stale, value{"lost"}); !errors.Is(err, ErrConflict) {
			t.Errorf("revision %d: %v", stale, err)
		}
	}
	if rev, err = s.Put("hosts/a", 1, value{"two"}); err != nil || rev != 2 {
		t.Fatalf("swap: %d, %v", rev, err)
	}
	s = open(t, dir) // what is on disk is what counts
	var v value
	if rev, err := s.Get("hosts/a", &v); err != nil || rev != 2 || v.Text != "two" {
		t.Errorf("read back %d %q, %v", rev, v.Text, err)
	}
	if err := s.Delete("hosts/a", 1); !errors.Is(err, ErrConflict) {
		t.Errorf("delete with a stale revision: %v", err)
	}
	if err := s.Delete("hosts/a", 2); err != nil {
		t.Error(err)
	}
	if _, err := open(t, dir).Get("hosts/a", &v); !errors.Is(err, ErrNotFound) {
		t.Errorf("after delete: %v", err)
	}
}

func TestListAndWatch(t *testing.T) {
	s := open(t, t.TempDir())
	changed, stop := s.Watch("hosts/")
	for _, name := range []string{"hosts/b", "hosts/a", "site"} {
		if _, err := s.Put(name, 0, value{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.List("hosts/"); !slices.Equal(got, []string{"hosts/a", "hosts/b"}) {
		t.Errorf("list: %v", got)
	}
	select {
	case <-changed:
	default:
		t.Error("not nudged")
	}
	select {
	case <-changed:
		t.Error("two changes are two nudges; one slot is enough")
	default:
	}
	if _, err := s.Put("other", 0, value{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("nudged by a record outside of the prefix")
	default:
	}
	stop()
}

func TestNames(t *testing.T) {
	s := open(t, t.TempDir())
	for _, bad := range []string{"", "..", "a/../b", "/a", "a/b/c", "A", "a.json", ".a", "a/"} {
		if _, err := s.Put(bad, 0, value{}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestRefusedFiles: a record that this program would misread is an error that
// names the file and says what to do.
func TestRefusedFiles(t *testing.T) {
	for what, c := range map[string]struct{ content, says string }{
		"newer":      {`{"format": 2, "rev": 1, "value": {}}`, "newer trustcast"},
		"damaged":    {`{"format": 1, "rev"`, "damaged"},
		"empty":      {``, "damaged"},
		"no rev":     {`{"format": 1, "value": {}}`, "damaged"},
		"other json": {`{"hello": 1}`, "damaged"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "site.json"), []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "site.json") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestUnknownFieldIsNotLost(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "site.json"), []byte(`{"format": 1, "rev": 1, "value": {"text": "a", "more": 1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var v value
	if _, err := open(t, dir).Get("site", &v); err == nil {
		t.Error("a field of a newer program would be dropped at the next write")
	}
}

func TestTemporaryFilesGo(t *testing.T) {
	dir := t.TempDir()
	stray := filepath.Join(dir, ".site.json123456")
	if err := os.WriteFile(stray, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Error("what a killed write left is still there")
	}
}

func TestOneServerAtATime(t *testing.T) {
	dir := t.TempDir()
	release, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("second lock: %v", err)
	}
	release()
	if release, err = Lock(dir); err != nil {
		t.Errorf("after release: %v", err)
	} else {
		release()
	}
}

func TestKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	keys, err := OpenKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, string(a)+".key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "."+string(b)+".key77"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keys.Sweep(map[KeyID]bool{a: true}); err != nil {
		t.Fatal(err)
	}
	if have, err := keys.List(); err != nil || !slices.Equal(have, []KeyID{a}) {
		t.Errorf("after sweep: %v, %v", have, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
	if _, err := keys.Load(a); err != nil {
		t.Error(err)
	}
	if _, err := keys.Load(b); err == nil || !strings.Contains(err.Error(), "backup") {
		t.Errorf("a destroyed key: %v", err)
	}
	// A key under another's name is not taken for it.
	if err := os.Rename(filepath.Join(dir, string(a)+".key"), filepath.Join(dir, string(b)+".key")); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Load(b); err == nil {
		t.Error("another key is taken for the named one")
	}
}
