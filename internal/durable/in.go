package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
)

// WriteFileIn is WriteFile of a file in an open directory: name has no slash, and no
// link leads the write anywhere else.
func WriteFileIn(dir *os.Root, name string, data []byte, perm fs.FileMode) error {
	path := filepath.Join(dir.Name(), name)
	return write(path, name, data, perm, renameio.WithRoot(dir), func() error { return syncIn(dir) })
}

// RemoveIn is Remove of a file in an open directory; a link is removed, and not what
// it leads to.
func RemoveIn(dir *os.Root, name string) error {
	path := filepath.Join(dir.Name(), name)
	reached(beforeWrite, path)
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := syncIn(dir); err != nil {
		return err
	}
	reached(afterRename, path)
	return nil
}

// MkdirIn makes a directory in an open one, synced into it, if nothing is there.
func MkdirIn(dir *os.Root, name string, perm fs.FileMode) error {
	err := dir.Mkdir(name, perm)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make directory %s: %w", filepath.Join(dir.Name(), name), err)
	}
	return syncIn(dir)
}

// mostEntries is among how many entries StraysIn looks: others may have filled the
// directory, and a left-over file does no harm.
const mostEntries = 1000

// StraysIn is Strays in an open directory, among the first entries of a very large one.
func StraysIn(dir *os.Root, names ...string) error {
	d, err := dir.Open(".")
	if err != nil {
		return fmt.Errorf("look for left-over files: %w", err)
	}
	defer func() { _ = d.Close() }() // only read
	entries, err := d.ReadDir(mostEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("look for left-over files: %w", err)
	}
	for _, e := range entries {
		if !slices.ContainsFunc(names, func(name string) bool { return IsTemporary(e.Name(), name) }) {
			continue
		}
		if err := dir.Remove(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove left-over file: %w", err)
		}
	}
	return nil
}

func syncIn(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return syncOpen(d, dir.Name())
}
