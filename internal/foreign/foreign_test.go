package foreign

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int{0, 1, Largest, Largest + 1, 3 * Largest} {
		path, want := filepath.Join(dir, "file"), bytes.Repeat([]byte("x"), size)
		must(t, os.WriteFile(path, want, 0o600))
		data, more, err := ReadFile(path)
		if err != nil || more != (size > Largest) || !bytes.Equal(data, want[:min(size, Largest)]) {
			t.Errorf("of %d bytes %d were read, more %v, %v", size, len(data), more, err)
		}
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(t, os.Symlink("pipe", filepath.Join(dir, "link")))
	for name, want := range map[string]error{"pipe": ErrIrregular, "link": ErrIrregular, ".": ErrIrregular, "none": fs.ErrNotExist} {
		if _, _, err := ReadFile(filepath.Join(dir, name)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	for i := range MostEntries + 2 {
		entries, more, err := ReadDir(dir)
		if err != nil || len(entries) != min(i, MostEntries) || more != (i > MostEntries) {
			t.Fatalf("of %d entries %d were read, more %v, %v", i, len(entries), more, err)
		}
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d", MostEntries+2-i)), nil, 0o600))
	}
	must(t, os.Remove(filepath.Join(dir, "0001")))
	must(t, os.Remove(filepath.Join(dir, "0002")))
	entries, _, err := ReadDir(dir)
	if err != nil || entries[0].Name() != "0003" || entries[len(entries)-1].Name() != fmt.Sprintf("%04d", MostEntries+2) {
		t.Errorf("not sorted: %v, %v", entries, err)
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	if _, _, err := ReadDir(filepath.Join(dir, "pipe")); err == nil {
		t.Error("a pipe is a directory")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
