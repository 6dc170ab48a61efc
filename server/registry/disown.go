package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/internal/below"
)

// disown takes docker/ and all below it back for this process before it serves and
// writes there. Replicas of Docker outlive their server, and one in foreign hands must
// change nothing from then on: neither by its path nor from a directory that it is in.
// docker/ gets its mark last, so that what was interrupted is done again.
func disown(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the data directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	self := owner{os.Geteuid(), os.Getegid()}
	info, err := root.Lstat(blobsDir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && self.has(info) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look who owns the blobs: %w", err)
	}
	if err := unwritten(ctx, dir); err != nil {
		return err
	}
	if err := takeAll(ctx, root, self); err != nil {
		return err
	}
	// Who wrote there may have left links to what this process can read.
	if err := CheckImages(dir); err != nil {
		return err
	}
	if err := allTaken(ctx, root, self); err != nil {
		return err
	}
	if err := root.Lchown(blobsDir, self.uid, self.gid); err != nil {
		return notMine(err, self)
	}
	return nil
}

// unwritten makes sure that no container works on the images, where Docker can be
// asked: it would fail with what is taken from it.
func unwritten(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, pingWithin)
	defer cancel()
	names, err := writers(ctx, "", dir)
	if err != nil || len(names) == 0 {
		return nil //nolint:nilerr // no Docker, or none that we may ask: what is taken is safe from its containers
	}
	return fmt.Errorf("containers use the data directory %s, whose images must change their owner first: stop them with `docker stop %s`, or start the server with --engine docker as before", dir, strings.Join(names, " "))
}

// takeAll takes directories before it looks what is in them: nobody else can change
// that any more. docker/ comes first, and is marked as not done by its group.
func takeAll(ctx context.Context, root *os.Root, self owner) error {
	err := fs.WalkDir(root.FS(), blobsDir, func(path string, _ fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if path == blobsDir {
			return take(root, path, owner{self.uid, self.gid + 1})
		}
		return take(root, path, self)
	})
	if err != nil {
		return fmt.Errorf("take the registry's files from the replicas of Docker (a new start goes on): %w", notMine(err, self))
	}
	return nil
}

// take makes something its new owner's, and nobody else's to write. Links are changed,
// never followed.
func take(root *os.Root, path string, who owner) error {
	if err := root.Lchown(path, who.uid, who.gid); err != nil {
		return err
	}
	info, err := root.Lstat(path) // until now the old owner could give others the right to write
	if err != nil {
		return err
	}
	perm := info.Mode().Perm() &^ 0o022
	switch {
	case info.IsDir():
		perm |= 0o700
	case info.Mode().IsRegular():
		perm |= 0o600
	default:
		return nil // CheckImages refuses it
	}
	if info.Mode()&^fs.ModeDir != perm {
		if err := root.Chmod(path, perm); err != nil {
			return err
		}
	}
	if info.IsDir() {
		return dropDefaults(root, path)
	}
	return nil
}

// dropDefaults removes the access rights that a directory's old owner has set for what
// will be made in it.
func dropDefaults(root *os.Root, path string) error {
	d, err := root.Open(path)
	if err != nil {
		return err
	}
	err = unix.Fremovexattr(int(d.Fd()), "system.posix_acl_default")
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) { // none, or none here
		err = nil
	}
	if err != nil {
		err = &fs.PathError{Op: "remove the default rights of", Path: path, Err: err}
	}
	return errors.Join(err, d.Close())
}

// allTaken fails when somebody has come back.
func allTaken(ctx context.Context, root *os.Root, self owner) error {
	err := fs.WalkDir(root.FS(), blobsDir, func(path string, e fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil || path == blobsDir {
			return err
		}
		info, err := e.Info()
		if err == nil && !self.has(info) {
			err = fmt.Errorf("%s belongs to somebody else again: find out who writes there, stop that, then start again", path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look who owns the registry's files: %w", err)
	}
	return nil
}

// CheckImages fails when there is something below a data directory's docker/ that no
// registry wrote, such as a link: one that serves images follows it, also to keys. It
// looks at each file once, and is for data that comes from somebody else.
func CheckImages(dir string) (err error) {
	d, err := below.Open(filepath.Join(dir, blobsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the registry's images: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Check(); err != nil {
		return fmt.Errorf("the registry's images in %s: %w: find out who put it there, then remove it", filepath.Join(dir, blobsDir), err)
	}
	return nil
}
