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
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"
)

// WriteFile replaces path with data, durably. The temporary name starts with a
// dot and ends in digits, so that neither a directory listing of records nor
// Docker's scan for *.crt takes it for content.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(path)
	return write(path, path, data, perm, renameio.WithTempDir(dir), func() error { return syncDir(dir) })
}

// write replaces path, which the option's side of the file system calls name.
func write(path, name string, data []byte, perm fs.FileMode, where renameio.Option, sync func() error) error {
	reached(beforeWrite, path)
	f, err := renameio.NewPendingFile(name, where, renameio.WithPermissions(perm), renameio.IgnoreUmask())
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
	if err := sync(); err != nil {
		return err
	}
	reached(afterRename, path)
	return nil
}

// File is one of WriteFiles.
type File struct {
	Path string
	Data []byte
}

// WriteFiles replaces several files of one directory, each as WriteFile does, in
// little more than the time of one: the disk syncs them together. After an error any
// of them may be the new one.
func WriteFiles(files []File, perm fs.FileMode) error {
	if len(files) == 0 {
		return nil
	}
	var all []*renameio.PendingFile
	defer func() {
		for _, f := range all {
			_ = f.Cleanup() // nothing left to clean after the rename
		}
	}()
	for _, file := range files {
		reached(beforeWrite, file.Path)
		f, err := renameio.NewPendingFile(file.Path, renameio.WithTempDir(filepath.Dir(file.Path)), renameio.WithPermissions(perm), renameio.IgnoreUmask())
		if err != nil {
			return fmt.Errorf("write %s: %w", file.Path, err)
		}
		all = append(all, f)
		if _, err := f.Write(file.Data); err != nil {
			return fmt.Errorf("write %s: %w", file.Path, err)
		}
	}
	var syncing errgroup.Group
	for _, f := range all {
		syncing.Go(f.Sync)
	}
	if err := syncing.Wait(); err != nil {
		return fmt.Errorf("write files: %w", err)
	}
	for i, f := range all {
		reached(beforeRename, files[i].Path)
		if err := f.CloseAtomicallyReplace(); err != nil { // its fsync finds nothing to do
			return fmt.Errorf("write %s: %w", files[i].Path, err)
		}
	}
	if err := syncDir(filepath.Dir(files[0].Path)); err != nil {
		return err
	}
	for _, file := range files {
		reached(afterRename, file.Path)
	}
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
// targets called so.
func Strays(dir string, names ...string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for left-over files: %w", err)
	}
	for _, e := range entries {
		if slices.ContainsFunc(names, func(name string) bool { return IsTemporary(e.Name(), name) }) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove left-over file: %w", err)
			}
		}
	}
	return nil
}

// IsTemporary knows the names that renameio gives: a dot, the target's name and
// a number.
func IsTemporary(entry, target string) bool {
	digits, ok := strings.CutPrefix(entry, "."+target)
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return syncOpen(d, dir)
}

// syncOpen closes the directory, too.
func syncOpen(d *os.File, dir string) error {
	defer func() { _ = d.Close() }() // read-only handle
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
