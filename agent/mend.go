package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/internal/durable"
)

// mend puts right what is this agent's own: its files where runtimes read them, their
// modes, those of its data directory, and what killed writes left. A running agent
// does the first itself, and is left to it.
func (a *membership) mend(running bool) (did []string, err error) {
	var all []error
	note := func(what string, err error) {
		switch {
		case err != nil:
			all = append(all, err)
		case what != "":
			did = append(did, what)
		}
	}
	for _, path := range a.outsideHomes(a.owned.Files) {
		note(chmod(path, 0o644))
		note(sweepBeside(path))
	}
	for _, dir := range a.outsideHomes(a.owned.Dirs) {
		note(chmod(dir, 0o755))
	}
	note(chmod(a.cfg.DataDir, 0o700))
	for _, name := range stateFiles {
		note(chmod(filepath.Join(a.cfg.DataDir, name), 0o600))
	}
	if !running {
		note(a.installAgain())
	}
	return did, errors.Join(all...)
}

// outsideHomes leaves out what is in the home of a user, who may have made links of it:
// there everything is done with the user's rights, by install alone.
func (a *membership) outsideHomes(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return slices.ContainsFunc(a.owned.Homes, func(h install.Home) bool { return strings.HasPrefix(path, filepath.Clean(h.Dir)+"/") })
	})
}

// chmod gives one of our files or directories its mode. A link is not followed: what it
// leads to is somebody else's.
func chmod(path string, mode fs.FileMode) (did string, err error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return "", nil
	case err != nil:
		return "", err
	case !info.IsDir() && !info.Mode().IsRegular(), info.Mode().Perm() == mode:
		return "", nil
	}
	if err := os.Chmod(path, mode); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s had mode %v, and has %v again", path, info.Mode().Perm(), mode), nil
}

// sweepBeside removes what killed writes of one of our files left.
func sweepBeside(path string) (did string, err error) {
	dir := filepath.Dir(path)
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return "", nil //nolint:nilerr // nothing of ours to sweep there; the checks say more
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if err := durable.Strays(dir, filepath.Base(path)); err != nil {
		return "", err
	}
	after, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if n := len(before) - len(after); n > 0 {
		return fmt.Sprintf("%d left-over files removed from %s", n, dir), nil
	}
	return "", nil
}

// installAgain writes the accepted bundle where it is not, as a starting agent would.
func (a *membership) installAgain() (did string, err error) {
	release, err := a.store.lock()
	if errors.Is(err, ErrRunning) {
		return "", nil // started meanwhile: it mends
	}
	if err != nil {
		return "", err
	}
	defer release()
	if err := a.detect(); err != nil {
		return "", err
	}
	have, astray := a.have()
	if len(a.bundle.Roots) == 0 || !a.unplanned() && !astray && !Decide(have, nil).Install {
		return "", nil
	}
	if err := a.install(); err != nil {
		return "", err
	}
	if onDisk, _ := proveFiles(a.host.Read(a.names, a.owned)); onDisk == "" || onDisk != a.bundle.Fingerprint() {
		return "", nil // the checks say what stands in the way
	}
	return fmt.Sprintf("the CA (generation %d, %s) is installed again", a.bundle.Generation, a.bundle.Fingerprint().Short()), nil
}
