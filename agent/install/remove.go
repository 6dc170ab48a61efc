package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/internal/durable"
)

// Divide parts what is owned into what lies in these places and what lies elsewhere.
func (h Host) Divide(owned Owned) (in, elsewhere Owned) {
	in.Homes, elsewhere.Homes = owned.Homes, owned.Homes
	for _, path := range owned.Files {
		ours := func(p Place) bool { return filepath.Dir(filepath.Dir(path)) == filepath.Clean(p.Dir) }
		if slices.ContainsFunc(h.Places, ours) {
			in.Files = append(in.Files, path)
		} else {
			elsewhere.Files = append(elsewhere.Files, path)
		}
	}
	for _, path := range owned.Dirs {
		ours := func(p Place) bool {
			return filepath.Dir(path) == filepath.Clean(p.Dir) || slices.Contains(parents(p.Dir, p.Home), path)
		}
		if slices.ContainsFunc(h.Places, ours) {
			in.Dirs = append(in.Dirs, path)
		} else {
			elsewhere.Dirs = append(elsewhere.Dirs, path)
		}
	}
	return in, elsewhere
}

// Remove deletes the owned files and the directories that we made and nobody
// else uses, also of runtimes that are not here any more. What a user keeps from us
// stays in that home, and is no error: it must not keep this host from leaving.
func (h Host) Remove(owned Owned) (removed []string, err error) {
	var errs []error
	for _, path := range owned.Files {
		found := false
		err := owned.with(path, func() (err error) {
			found, err = remove(path)
			return err
		})
		if err != nil && (!owned.inHome(path) || errors.Is(err, errRights)) {
			errs = append(errs, fmt.Errorf("remove %s: %w", path, err))
		}
		if err == nil && found {
			removed = append(removed, path)
		}
	}
	dirs := slices.Clone(owned.Dirs)
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) }) // inner ones first
	for _, dir := range dirs {
		_ = owned.with(dir, func() error { // in use by somebody else now: theirs
			if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
				return err
			}
			return os.Remove(dir)
		})
	}
	return removed, errors.Join(errs...)
}

// remove deletes a file of ours; was says whether there was one.
func remove(path string) (was bool, err error) {
	all, err := openRoot(filepath.Dir(filepath.Dir(path))) // the certs.d
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = all.Close() }() // only looked through
	name, file := filepath.Base(filepath.Dir(path)), filepath.Base(path)
	if info, err := all.Lstat(name); err != nil || !info.IsDir() {
		return false, nil // what is there now is not what we made
	}
	in, err := all.OpenRoot(name)
	if err != nil {
		return false, err
	}
	defer func() { _ = in.Close() }() // what is removed is synced
	if err := durable.StraysIn(in, file); err != nil {
		return false, err
	}
	if _, err := in.Lstat(file); err != nil {
		return false, nil
	}
	return true, durable.RemoveIn(in, file)
}
