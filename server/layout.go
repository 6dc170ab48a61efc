package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/trustcast/trustcast/internal/durable"
)

// layout is where things are in a data directory. A volume made by a plain
// registry has the same shape but for state.
type layout struct{ dir string }

func (l layout) state() string      { return filepath.Join(l.dir, "state") }
func (l layout) records() string    { return filepath.Join(l.dir, "state", "records") }
func (l layout) keys() string       { return filepath.Join(l.dir, "state", "keys") }
func (l layout) socket() string     { return filepath.Join(l.dir, "state", "admin.sock") }
func (l layout) htpasswd() string   { return filepath.Join(l.dir, "auth", "htpasswd") }
func (l layout) caFile() string     { return filepath.Join(l.dir, "certs", "ca.crt") }
func (l layout) images() string     { return filepath.Join(l.dir, "docker") }
func (l layout) domainFile() string { return filepath.Join(l.dir, "certs", "domain.crt") }
func (l layout) oldKey() string     { return filepath.Join(l.dir, "certs", "domain.key") }

// create makes the directories. One that is there already, for example with what is
// adopted, becomes this user's: whoever else could write there could put other keys in
// their place.
func (l layout) create() error {
	for _, dir := range []struct {
		path string
		perm fs.FileMode
	}{{l.dir, 0o755}, {l.state(), 0o700}, {l.records(), 0o700}, {l.keys(), 0o700}, {filepath.Dir(l.htpasswd()), 0o700}, {filepath.Dir(l.caFile()), 0o755}} {
		err := durable.MkdirAll(dir.path, dir.perm)
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%w: run it as root, or give a directory of yours with --data-dir", err)
		}
		if err != nil {
			return err
		}
		if err := keepOthersOut(dir.path, dir.path == l.dir); err != nil {
			return err
		}
	}
	return nil
}

// keepOthersOut makes a directory one that only this user writes in. Only the data
// directory may be a link, to a volume.
func keepOthersOut(path string, mayBeLink bool) error {
	look := os.Lstat
	if mayBeLink {
		look = os.Stat
	}
	info, err := look(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory of its own (%s): remove it, then repeat the command", path, info.Mode().Type())
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		if err := os.Chown(path, os.Geteuid(), os.Getegid()); err != nil {
			return fmt.Errorf("%s belongs to uid %d, who could put other keys there: run `chown %d %s`, or run this as that user (%w)", path, stat.Uid, os.Geteuid(), path, err)
		}
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return os.Chmod(path, perm&^0o022)
	}
	return nil
}
