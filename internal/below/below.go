// Package below opens what lies below a directory in which somebody else may write:
// containers of the registry, or whoever owned it before.
//
// Nothing here leaves the directory by a link, waits at a pipe, reads a device, or
// takes more than it was told to. It changes nothing but by Remove.
package below

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrForeign says that something is neither a directory nor a regular file, which a
// registry never makes, or is larger than it can be.
var ErrForeign = errors.New("no registry wrote this")

// Dir is an open directory. Its methods may be called at the same time; names are
// slash-separated and relative to it.
type Dir struct {
	root *os.Root
	self *os.File        // the same, for what is done in one step
	conn syscall.RawConn // of self; nil as on a kernel that cannot do that, for tests
}

// Open opens a directory, which may not be a link itself. Close it.
func Open(path string) (*Dir, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, foreign(path, info)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	conn, err := self.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, self.Close(), root.Close())
	}
	return &Dir{root, self, conn}, nil
}

// Close closes it.
func (d *Dir) Close() error { return errors.Join(d.self.Close(), d.root.Close()) }

// Stat looks at a directory or a regular file; anything else is ErrForeign.
func (d *Dir) Stat(name string) (fs.FileInfo, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, foreign(name, info)
	}
	return info, nil
}

// File opens a regular file to read.
func (d *Dir) File(name string) (*os.File, error) {
	fd, _, err := d.openFile(name)
	if !errors.Is(err, errNoOnce) {
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	// A link that takes its place now leads to another file here at worst.
	if _, err := d.Stat(name); err != nil {
		return nil, err
	}
	// Not to wait for a writer, were it a pipe by now.
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = foreign(name, info)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Read returns the content of a regular file of at most limit bytes.
func (d *Dir) Read(name string, limit int64) (content []byte, err error) {
	content, err = d.readOnce(name, limit)
	if errors.Is(err, errNoOnce) {
		content, err = d.readByFile(name, limit)
	}
	if err == nil && int64(len(content)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes: %w", name, limit, ErrForeign)
	}
	return content, err
}

func (d *Dir) readByFile(name string, limit int64) (content []byte, err error) {
	f, err := d.File(name)
	if err != nil {
		return nil, err
	}
	content, err = io.ReadAll(io.LimitReader(f, limit+1))
	return content, errors.Join(err, f.Close())
}

// List returns what is in a directory.
func (d *Dir) List(name string) ([]fs.DirEntry, error) {
	if _, err := d.Stat(name); err != nil {
		return nil, err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	return entries, errors.Join(err, f.Close())
}

// Remove removes a file, or a directory with all that is in it; a link is removed,
// and not what it leads to.
func (d *Dir) Remove(name string) error { return d.root.RemoveAll(name) }

// Check looks at everything, and fails at the first that no registry wrote.
func (d *Dir) Check() error {
	return fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() || e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return foreign(name, info)
	})
}

func foreign(name string, info fs.FileInfo) error {
	what := "neither a file nor a directory"
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		what = "a link"
	case info.Mode().IsRegular():
		what = "a file"
	}
	return fmt.Errorf("%s is %s: %w", name, what, ErrForeign)
}
