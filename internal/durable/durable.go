// Package durable is the one crash-safe file write of the program.
//
// A write lands in a temporary file beside its target, is synced, renamed over
// the target, and the directory is synced. A reader, and a process killed at
// any moment, sees the old content or the new, never a part and never nothing.
// It never creates directories with wider permissions than asked for, and never
// retries: an error means that the old content is still there or that the new
// one may be, and the caller repeats the whole write.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// WriteFile replaces path with data, durably. The temporary name starts with a
// dot and ends in digits, so that neither a directory listing of records nor
// Docker's scan for *.crt takes it for content.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(path)
	reached(beforeWrite, path)
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithPermissions(perm), renameio.IgnoreUmask())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = f.Cleanup() }() // nothing left to clean after the rename
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	reached(beforeRename, path)
	if err := f.CloseAtomicallyReplace(); err != nil { // fsync, close, rename
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	reached(afterRename, path)
	return nil
}

// Remove deletes path durably. A path that is not there is no error.
func Remove(path string) error {
	reached(beforeWrite, path)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	reached(afterRename, path)
	return nil
}

// Rename moves what is at path from to path to, which must not exist or be of the
// same kind, durably. Both are on one file system.
func Rename(from, to string) error {
	reached(beforeRename, to)
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(from)); err != nil {
		return err
	}
	reached(afterRename, to)
	return nil
}

// MkdirAll makes dir and its missing parents, each synced into its parent.
func MkdirAll(dir string, perm fs.FileMode) error {
	if fi, err := os.Stat(dir); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("make directory %s: a file of that name is in the way", dir)
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	return syncDir(parent)
}

// Strays removes the temporary files that a killed process left in dir for the
// target called name.
func Strays(dir, name string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for left-over files: %w", err)
	}
	for _, e := range entries {
		if isTemporary(e.Name(), name) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove left-over file: %w", err)
			}
		}
	}
	return nil
}

// isTemporary knows the names that renameio gives: a dot, the target's name and
// a number.
func isTemporary(entry, target string) bool {
	digits, ok := strings.CutPrefix(entry, "."+target)
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { _ = d.Close() }() // read-only handle
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
