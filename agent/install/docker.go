// Package install puts the bundle where clients of a registry look for it, and
// reads it back. Docker's certs.d is the one place for now.
//
// It owns the files it has written and no others: Owned lists them, a foreign
// file is never touched, and Remove leaves the directory as it was found. It
// decides nothing about which bundle is right.
package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/durable"
)

const (
	// fileName is what people copy by hand today; ours takes its place.
	fileName = "ca.crt"
	// besideName is used when a foreign ca.crt is there; Docker reads every
	// *.crt of the directory.
	besideName = "trustcast-ca.crt"
)

// Docker is Docker's directory of registry certificates.
type Docker struct {
	// Dir is certs.d, by default /etc/docker/certs.d.
	Dir string
}

// Owned is what an agent has written, kept durably by its caller.
type Owned struct {
	Files []string `json:"files"`
	// Dirs were made by us and are removed when empty.
	Dirs []string `json:"dirs"`
}

// Check says what to do when this process could not make Dir or a directory in it.
func (d Docker) Check() error {
	at := filepath.Clean(d.Dir)
	info, err := os.Stat(at)
	for ; errors.Is(err, fs.ErrNotExist) && filepath.Dir(at) != at; info, err = os.Stat(at) {
		at = filepath.Dir(at)
	}
	if err == nil && !info.IsDir() {
		err = errors.New("it is no directory")
	}
	if err == nil {
		err = unix.Access(at, unix.W_OK|unix.X_OK)
	}
	if err != nil {
		return fmt.Errorf("the CA cannot be installed into %s, since %s cannot be written (%w): run the agent as root, or give your Docker's directory with --docker-certs-dir", d.Dir, at, err)
	}
	return nil
}

// Plan returns owned with the files and directories that names need. The caller
// keeps it durably before Apply: what is written down may be removed later.
func (d Docker) Plan(names []certs.Name, owned Owned) Owned {
	plan := Owned{Files: slices.Clone(owned.Files), Dirs: slices.Clone(owned.Dirs)}
	for _, dir := range d.dirs(names) {
		for _, made := range []string{d.Dir, dir} {
			if _, err := os.Lstat(made); errors.Is(err, fs.ErrNotExist) && !slices.Contains(plan.Dirs, made) {
				plan.Dirs = append(plan.Dirs, made)
			}
		}
		if _, ok := ownedIn(dir, plan.Files); !ok {
			plan.Files = append(plan.Files, filepath.Join(dir, freeName(dir)))
		}
	}
	return plan
}

// dirs are the directories that Docker looks into for names.
func (d Docker) dirs(names []certs.Name) []string {
	var dirs []string
	for _, n := range names {
		for _, dir := range n.Dirs() {
			dirs = append(dirs, filepath.Join(d.Dir, dir))
		}
	}
	return dirs
}

func ownedIn(dir string, files []string) (string, bool) {
	for _, f := range files {
		if filepath.Dir(f) == dir {
			return f, true
		}
	}
	return "", false
}

// freeName is ca.crt unless somebody else's is there.
func freeName(dir string) string {
	if _, err := os.Lstat(filepath.Join(dir, fileName)); err == nil {
		return besideName
	}
	return fileName
}

// Apply writes pem into every owned file that names need and that does not hold
// it already. Each write is atomic; old and new roots are in one file.
func (d Docker) Apply(names []certs.Name, owned Owned, pem []byte) error {
	for _, dir := range d.dirs(names) {
		path, ok := ownedIn(dir, owned.Files)
		if !ok {
			return fmt.Errorf("install into %s: not planned", dir)
		}
		if have, err := os.ReadFile(path); err == nil && string(have) == string(pem) {
			continue
		}
		if err := durable.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("install the CA: %w", err)
		}
		if err := durable.Strays(dir, filepath.Base(path)); err != nil {
			return fmt.Errorf("install the CA: %w", err)
		}
		if err := durable.WriteFile(path, pem, 0o644); err != nil {
			return fmt.Errorf("install the CA: %w", err)
		}
	}
	return nil
}

// Found is what one directory holds, as re-read.
type Found struct {
	// Path of our file there.
	Path string
	// Roots in it; nil when it cannot be read.
	Roots []certs.Fingerprint
	// Fingerprint over them.
	Fingerprint certs.Fingerprint
	// Problem says why Docker would not use it, or use something else.
	Problem string
}

// Read reads back what Docker will find for names.
func (d Docker) Read(names []certs.Name, owned Owned) []Found {
	var all []Found
	for _, dir := range d.dirs(names) {
		path, ok := ownedIn(dir, owned.Files)
		if !ok {
			path = filepath.Join(dir, fileName)
		}
		all = append(all, read(dir, path))
	}
	return all
}

func read(dir, path string) Found {
	f := Found{Path: path}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		f.Problem = err.Error()
		return f
	}
	roots, err := certs.ParsePEM(data)
	if err != nil {
		f.Problem = fmt.Sprintf("%s: %v", path, err)
		return f
	}
	f.Fingerprint = certs.FingerprintOf(roots...)
	for _, r := range roots {
		f.Roots = append(f.Roots, certs.FingerprintOf(r))
	}
	f.Problem = breaks(dir)
	return f
}

// breaks says what in a directory makes Docker fail every pull from the
// registry, or "": a *.crt that is no file, a client certificate without its
// key or the reverse.
func breaks(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Name()] = true
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		switch filepath.Ext(name) {
		case ".crt":
			info, err := os.Stat(path)
			if err != nil {
				return fmt.Sprintf("%s cannot be read (%v); Docker fails every pull over it: remove it", path, err)
			}
			if info.IsDir() {
				return fmt.Sprintf("%s is a directory; Docker fails every pull over it: remove it", path)
			}
		case ".cert":
			if key := strings.TrimSuffix(name, ".cert") + ".key"; !have[key] {
				return fmt.Sprintf("%s has no %s beside it; Docker fails every pull over it: add or remove one", path, key)
			}
		case ".key":
			if cert := strings.TrimSuffix(name, ".key") + ".cert"; !have[cert] {
				return fmt.Sprintf("%s has no %s beside it; Docker fails every pull over it: add or remove one", path, cert)
			}
		}
	}
	return ""
}

// Remove deletes the owned files and the directories that we made and nobody
// else uses.
func (d Docker) Remove(owned Owned) (removed []string, err error) {
	for _, path := range owned.Files {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := durable.Strays(filepath.Dir(path), filepath.Base(path)); err != nil {
			return removed, err
		}
		if err := durable.Remove(path); err != nil {
			return removed, fmt.Errorf("remove %s: %w", path, err)
		}
		removed = append(removed, path)
	}
	dirs := slices.Clone(owned.Dirs)
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) }) // inner ones first
	for _, dir := range dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // in use by somebody else now: theirs
		}
	}
	return removed, nil
}
