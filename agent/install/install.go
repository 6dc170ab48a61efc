// Package install puts the bundle where the container runtimes of this host look for
// it, and reads it back: Docker's certs.d, and those of others that are here.
//
// It owns the files it has written and no others: Owned lists them, a foreign
// file is never touched, and Remove leaves the directories as they were found. No
// domain and no link leads a write out of a place's directory. It decides nothing
// about which bundle is right.
package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/durable"
)

const (
	// fileName is what people copy by hand today; ours takes its place.
	fileName = "ca.crt"
	// besideName is used when a foreign ca.crt is there; the runtimes read every
	// *.crt of the directory. More of them are numbered.
	besideName = "trustcast-ca.crt"

	fileMode = 0o644
	dirMode  = 0o755
)

// Host is where the runtimes of this host look.
type Host struct{ Places []Place }

// WithoutAside leaves the places out that are no part of evidence.
func (h Host) WithoutAside() Host {
	return Host{Places: slices.DeleteFunc(slices.Clone(h.Places), func(p Place) bool { return p.Aside })}
}

// Runtimes are those of the places.
func (h Host) Runtimes() (all []string) {
	for _, p := range h.Places {
		all = append(all, p.Runtime)
	}
	return all
}

// Owned is what an agent has written, kept durably by its caller.
type Owned struct {
	Files []string `json:"files"`
	// Dirs were made by us and are removed when empty.
	Dirs []string `json:"dirs"`
	// Homes are those of users in which some of it lies.
	Homes []Home `json:"homes,omitempty"`
}

// Check says what to do when this process could not make a place's Dir or a
// directory in it. What users have done to their homes is left out.
func (h Host) Check() error {
	var errs []error
	for _, p := range h.Places {
		if !p.Aside {
			errs = append(errs, p.check())
		}
	}
	return errors.Join(errs...)
}

func (p Place) check() error {
	found := filepath.Clean(p.Dir)
	err := p.with(func() error {
		at := found
		info, err := os.Stat(at)
		for ; errors.Is(err, fs.ErrNotExist) && filepath.Dir(at) != at; info, err = os.Stat(at) {
			at = filepath.Dir(at)
		}
		if err == nil && !info.IsDir() {
			err = errors.New("it is no directory")
		}
		if err == nil {
			err = unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		}
		if err != nil {
			return fmt.Errorf("%s cannot be written (%w)", at, err)
		}
		return nil
	})
	switch {
	case err == nil:
		return nil
	case p.Runtime == RuntimeDocker:
		return fmt.Errorf("the CA cannot be installed into %s, since %w: run the agent as root, or give your Docker's directory with --docker-certs-dir", p.Dir, err)
	}
	return fmt.Errorf("the CA cannot be installed for %s into %s, since %w: let the agent write there, or name the runtimes to install for with --runtimes", p.Runtime, p.Dir, err)
}

// Plan returns owned with the files and directories that names need. The caller
// keeps it durably before Apply: what is written down may be removed later.
func (h Host) Plan(names []certs.Name, owned Owned) Owned {
	plan := owned.clone()
	for _, p := range h.Places {
		next := plan.clone()
		err := p.with(func() error {
			p.plan(names, &next)
			return nil
		})
		if err == nil { // otherwise Apply meets the same error, and says it
			plan = next
		}
	}
	return plan
}

func (o Owned) clone() Owned {
	return Owned{Files: slices.Clone(o.Files), Dirs: slices.Clone(o.Dirs), Homes: slices.Clone(o.Homes)}
}

func (p Place) plan(names []certs.Name, plan *Owned) {
	if home := (Home{p.Home, p.UID, p.GID}); p.Home != "" && !slices.Contains(plan.Homes, home) {
		// Whose it was before is gone.
		plan.Homes = slices.DeleteFunc(plan.Homes, func(h Home) bool { return filepath.Clean(h.Dir) == filepath.Clean(p.Home) })
		plan.Homes = append(plan.Homes, home)
	}
	for _, name := range p.targets(names, plan.Files) {
		dir := filepath.Join(p.Dir, name)
		for made := dir; !there(made); made = filepath.Dir(made) {
			if !slices.Contains(plan.Dirs, made) {
				plan.Dirs = append(plan.Dirs, made)
			}
		}
		if _, ok := ownedIn(dir, plan.Files); !ok {
			plan.Files = append(plan.Files, filepath.Join(dir, freeName(dir)))
		}
	}
}

// freeName is ca.crt unless somebody else's is there.
func freeName(dir string) string {
	name := fileName
	for n := 1; there(filepath.Join(dir, name)); n++ {
		name = besideName
		if n > 1 {
			name = fmt.Sprintf("trustcast-ca-%d.crt", n)
		}
	}
	return name
}

// Apply writes pem into every owned file that names need and that does not hold
// it already. Each write is atomic; old and new roots are in one file. What fails in
// one place keeps it from no other; places aside fail in silence, and Read says why.
func (h Host) Apply(names []certs.Name, owned Owned, pem []byte) error {
	var errs []error
	for _, p := range h.Places {
		err := p.with(func() error { return p.apply(names, owned, pem) })
		if err != nil && !p.Aside {
			errs = append(errs, fmt.Errorf("install the CA: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (p Place) apply(names []certs.Name, owned Owned, pem []byte) error {
	var errs []error
	for _, name := range p.targets(names, owned.Files) {
		dir := filepath.Join(p.Dir, name)
		path, ok := ownedIn(dir, owned.Files)
		if !ok {
			errs = append(errs, fmt.Errorf("into %s: not planned", dir))
			continue
		}
		if have, err := readFile(path, p.public(owned)); err == nil && string(have) == string(pem) {
			continue
		}
		errs = append(errs, p.write(name, filepath.Base(path), p.public(owned), pem))
	}
	return errors.Join(errs...)
}

// public are the directories that we made and that everybody may enter. In a home that
// is for its user to say, whose engine has no other rights.
func (p Place) public(owned Owned) []string {
	if p.Home != "" {
		return nil
	}
	return owned.Dirs
}

// write replaces a file in the directory of that name; made are the directories that
// are ours.
func (p Place) write(name, file string, made []string, pem []byte) error {
	if err := durable.MkdirAll(p.Dir, dirMode); err != nil {
		return err
	}
	all, err := openRoot(p.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = all.Close() }() // only looked through
	dir := filepath.Join(p.Dir, name)
	info, err := all.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = durable.MkdirIn(all, name, dirMode)
	} else if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no directory, but a link or a file: remove it, and the agent makes one", dir)
	}
	if err == nil {
		err = openUp(append(parents(p.Dir, p.Home), dir), made)
	}
	if err != nil {
		return err
	}
	in, err := all.OpenRoot(name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // what is written is synced
	if err := durable.StraysIn(in, file); err != nil {
		return err
	}
	return durable.WriteFileIn(in, file, pem, fileMode)
}

// parents are a directory and those above it, below top.
func parents(dir, top string) (all []string) {
	for at := filepath.Clean(dir); at != filepath.Dir(at) && at != filepath.Clean(top); at = filepath.Dir(at) {
		all = append(all, at)
	}
	return all
}

// openUp gives the directories that we made their permissions, whatever this process's
// umask was, or somebody has done since.
func openUp(dirs, made []string) error {
	for _, dir := range dirs {
		if !slices.Contains(made, dir) {
			continue
		}
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || permitted(info, dirMode) {
			continue // what is wrong with it is met by who opens it
		}
		if err := os.Chmod(dir, dirMode); err != nil {
			return err
		}
	}
	return nil
}
