package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
	"time"
)

const (
	// blobsDir of the data directory has all that a registry writes.
	blobsDir = "docker"
	// ownSays is how often a long change of owners says how far it is.
	ownSays = 10 * time.Second
)

// Owners: replicas run as a user of their own, and everything below docker/ must be
// theirs. Others that write there (the embedded engine as root, a restore, a plain
// registry) leave files of other owners. So docker/ itself is the mark: it belongs
// to the replicas' user only after all below does, and whoever writes there as
// another user takes docker/ back first, with disown. There is no second record
// that could contradict the files.

// owner is a user and its group.
type owner struct{ uid, gid int }

func (o owner) has(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == o.uid && int(stat.Gid) == o.gid
}

// own makes what replicas need writable for them, once a life of the server.
func (d *Docker) own(ctx context.Context) error {
	d.ownMu.Lock()
	defer d.ownMu.Unlock()
	if d.owned {
		return nil
	}
	who := owner{d.cfg.UID, d.gid}
	err := d.inRoot(func(root *os.Root) error {
		if err := prepare(root, who); err != nil {
			return err
		}
		if done, err := owned(root, who); done || err != nil {
			return err
		}
		if err := d.unused(ctx); err != nil {
			return err
		}
		return own(ctx, root, who, d.cfg.Log)
	})
	d.owned = err == nil
	return err
}

// prepare makes the directories that replicas write in, and lets them reach these.
func prepare(root *os.Root, who owner) error {
	top, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("the data directory: %w", err)
	}
	// Replicas see all of it: who can write there could put another state in its place.
	if err := root.Lchown(".", 0, 0); err != nil {
		return fmt.Errorf("take the data directory from its owner: %w", err)
	}
	// To pass, not to look: what is private in there has modes of its own.
	if perm := top.Mode().Perm()&^0o022 | 0o011; perm != top.Mode().Perm() {
		if err := root.Chmod(".", perm); err != nil {
			return fmt.Errorf("let replicas into the data directory: %w", err)
		}
	}
	for name, perm := range map[string]fs.FileMode{runDir: 0o700, blobsDir: 0o700} {
		err := root.Mkdir(name, perm)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("prepare the data directory: %w", err)
		}
		info, statErr := root.Lstat(name)
		if statErr != nil {
			return fmt.Errorf("prepare the data directory: %w", statErr)
		}
		if !info.IsDir() {
			return fmt.Errorf("%s of the data directory is no directory (%s), and containers follow no link out of it: mount there what it leads to", name, info.Mode().Type())
		}
		if who.has(info) || err != nil && name == blobsDir {
			continue // an older docker/ is the mark, and comes last
		}
		if err := root.Lchown(name, who.uid, who.gid); err != nil {
			return notMine(err, who)
		}
		if err := root.Chmod(name, perm); err != nil {
			return fmt.Errorf("prepare the data directory: %w", err)
		}
	}
	return nil
}

// owned says whether own is done already.
func owned(root *os.Root, who owner) (bool, error) {
	info, err := root.Lstat(blobsDir)
	if err != nil {
		return false, fmt.Errorf("look who owns the blobs: %w", err)
	}
	return who.has(info), nil
}

// own gives everything below docker/ to a user, docker/ last. Interrupted, it goes
// on the next time: what has the right owner is passed by. Links are changed, never
// followed. Nobody else may write there meanwhile.
func own(ctx context.Context, root *os.Root, who owner, log *slog.Logger) error {
	changed, seen, said := 0, 0, time.Now()
	err := fs.WalkDir(root.FS(), blobsDir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		seen++
		if time.Since(said) > ownSays {
			said = time.Now()
			log.Info("the registry's files get their new owner", "uid", who.uid, "files", seen, "changed", changed)
		}
		if path == blobsDir {
			return nil
		}
		info, err := root.Lstat(path)
		if err != nil {
			return err
		}
		if who.has(info) {
			return nil
		}
		changed++
		return root.Lchown(path, who.uid, who.gid)
	})
	if err != nil {
		return fmt.Errorf("give the registry's files to uid %d (%d are done, a new start goes on): %w", who.uid, changed, notMine(err, who))
	}
	if changed > 0 {
		log.Info("the registry's files have their new owner", "uid", who.uid, "files", seen, "changed", changed)
	}
	if err := root.Lchown(blobsDir, who.uid, who.gid); err != nil {
		return notMine(err, who)
	}
	return nil
}

// notMine adds the next step where this process may not change an owner.
func notMine(err error, who owner) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: files in the data directory belong to somebody else: run `chown -R %d:%d docker run` there as root, while nothing uses it", err, who.uid, who.gid)
	}
	return err
}
