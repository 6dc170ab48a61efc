package durable

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestWriteReplacesWithMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record.json")
	for _, content := range []string{"one", "a longer two", ""} {
		if err := WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != content || info.Mode().Perm() != 0o600 {
			t.Errorf("%q with mode %v, want %q (%v, %v)", got, info.Mode(), content, err, statErr)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
}

// TestFailedWriteKeepsTheOld: where nothing can be created, the error names the
// file and the old content stays.
func TestFailedWriteKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "missing", "record.json")
	if err := WriteFile(path, []byte("new"), 0o600); err == nil {
		t.Error("written into a directory that is not there")
	}
	inTheWay := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(inTheWay, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(inTheWay, []byte("new"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
}

// TestReadersSeeWholeFiles: while one writes, readers see one content or the
// other, never a part and never nothing.
func TestReadersSeeWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.crt")
	contents := map[string]bool{}
	var versions [][]byte
	for _, c := range []byte("abc") {
		v := make([]byte, 100_000)
		for i := range v {
			v[i] = c
		}
		versions = append(versions, v)
		contents[string(v)] = true
	}
	if err := WriteFile(path, versions[0], 0o644); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	reads := make([]int, 2)
	for r := range reads {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				data, err := os.ReadFile(path)
				if err != nil || !contents[string(data)] {
					t.Errorf("a reader saw %d bytes, %v", len(data), err)
					return
				}
				reads[r]++
			}
		})
	}
	for i := range 200 {
		if err := WriteFile(path, versions[i%3], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
	t.Logf("%v reads during 200 writes", reads)
}

func TestStrays(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".ca.crt123", ".ca.crt", ".ca.crt12x", "ca.crt", ".other.crt123"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Strays(dir, "ca.crt"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".ca.crt123")); err == nil {
		t.Error("a killed write's file stays")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("foreign files were removed: %v", entries)
	}
}

func TestMkdirAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(file, 0o700); err == nil {
		t.Error("a file in the way is taken for a directory")
	}
}

func TestWriteFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, content := range []string{"one", "two"} {
		if err := WriteFiles([]File{{a, []byte(content)}, {b, []byte(content)}}, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{a, b} {
			got, err := os.ReadFile(path)
			info, statErr := os.Stat(path)
			if err != nil || statErr != nil || string(got) != content || info.Mode().Perm() != 0o600 {
				t.Errorf("%q (%v, %v)", got, err, statErr)
			}
		}
	}
	if err := WriteFiles([]File{{a, []byte("three")}, {filepath.Join(dir, "missing", "c"), nil}}, 0o600); err == nil {
		t.Error("written into a directory that is not there")
	}
	if got, err := os.ReadFile(a); err != nil || string(got) != "two" {
		t.Errorf("one of them was replaced: %q, %v", got, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left over: %v", entries)
	}
}
