package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/trustcast/trustcast/internal/durable"
)

const (
	// stagingName is the directory in a data directory in which a restore prepares
	// the new data. It is inside, because the data directory may be a mountpoint,
	// which nothing can be renamed over.
	stagingName = ".restore"
	// switchName is the record of a switch that has begun: from then on there is
	// no way but forward.
	switchName = "switch.json"
)

// Roots are the entries of a data directory that a backup is about, in the order in
// which they are switched.
var Roots = []string{"docker", "certs", "auth", "state"}

// others may be in a directory that counts as empty: a mountpoint has lost+found, an
// engine its sockets.
var others = []string{stagingName, "lost+found", "run"}

// Staging is a place beside the old data for the new. One at a time has a data
// directory; see Settle for what a kill leaves.
type Staging struct {
	dir  string // data directory
	lock *os.File
}

// plan is what a switch does: these roots are taken from the new data.
type plan struct {
	Roots []string `json:"roots"`
}

func (s Staging) root() string     { return filepath.Join(s.dir, stagingName) }
func (s Staging) old() string      { return filepath.Join(s.root(), "old") }
func (s Staging) planFile() string { return filepath.Join(s.root(), switchName) }

// Dir is where the new data goes; empty at first.
func (s Staging) Dir() string { return filepath.Join(s.root(), "new") }

// Stage makes a place for new data in a data directory, which is made if it is
// missing. End with Discard, also after Commit. What an earlier one left is settled.
func Stage(dataDir string) (*Staging, error) {
	if err := durable.MkdirAll(dataDir, 0o755); err != nil {
		return nil, err
	}
	s, err := take(dataDir)
	if err != nil {
		return nil, err
	}
	if _, err := s.settle(); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	for _, dir := range []string{s.root(), s.Dir(), s.old()} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return nil, errors.Join(err, s.Discard())
		}
	}
	return s, nil
}

// take locks the data directory against other restores. The lock is the kernel's and
// ends with the process.
func take(dataDir string) (*Staging, error) {
	d, err := os.Open(filepath.Clean(dataDir))
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = d.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("a restore is at work in %s: wait for its end", dataDir)
		}
		return nil, fmt.Errorf("lock %s: %w", dataDir, err)
	}
	return &Staging{dir: dataDir, lock: d}, nil
}

// Occupied names what keeps a data directory from counting as empty; "" for nothing.
func (s *Staging) Occupied() (string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains(others, e.Name()) {
			return e.Name(), nil
		}
	}
	return "", nil
}

// Check says why some roots cannot be switched, before anything is.
func (s *Staging) Check() error {
	var home syscall.Stat_t
	if err := syscall.Stat(s.dir, &home); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, name := range append([]string{"docker/registry", registryRoot}, Roots...) {
		var at syscall.Stat_t
		path := filepath.Join(s.dir, name)
		switch err := syscall.Lstat(path, &at); {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR): // then its parent says it
		case err != nil:
			return fmt.Errorf("restore: %w", err)
		case at.Mode&syscall.S_IFMT != syscall.S_IFDIR:
			return fmt.Errorf("%s is no directory and cannot be replaced: move it away first", path)
		case at.Dev != home.Dev:
			return fmt.Errorf("%s is on a file system of its own, and no rename reaches it: unmount it, or give another --data-dir", path)
		}
	}
	return nil
}

// Commit puts the new data into the place of the old: first a record that says so,
// then a rename for each root. From the record on it cannot be undone, only
// finished, by this or by the next Settle.
func (s *Staging) Commit() error {
	var p plan
	for _, name := range Roots {
		if _, err := os.Lstat(filepath.Join(s.Dir(), name)); err == nil {
			p.Roots = append(p.Roots, name)
		}
	}
	if err := syncAll(s.Dir()); err != nil {
		return err
	}
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := durable.WriteFile(s.planFile(), append(data, '\n'), 0o600); err != nil {
		return err
	}
	return s.finish(p)
}

// finish does what is left of a plan.
func (s *Staging) finish(p plan) error {
	for _, name := range p.Roots {
		if !slices.Contains(Roots, name) {
			return fmt.Errorf("%s names %q, which no restore replaces: the file is damaged", s.planFile(), name)
		}
		fresh, place, old := filepath.Join(s.Dir(), name), filepath.Join(s.dir, name), filepath.Join(s.old(), name)
		if !exists(fresh) {
			continue // it is in its place
		}
		if exists(place) {
			if err := durable.Rename(place, old); err != nil {
				return err
			}
		}
		if err := durable.Rename(fresh, place); err != nil {
			return err
		}
	}
	// The record goes first: what is left then is rubbish.
	return durable.Remove(s.planFile())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Discard removes the staged and the replaced data and lets the data directory go.
// Where a Commit was cut short, it leaves everything for Settle.
func (s *Staging) Discard() error {
	var err error
	if !exists(s.planFile()) {
		err = os.RemoveAll(s.root())
	}
	return errors.Join(err, s.lock.Close())
}

// settle finishes or undoes what a killed restore left; finished: its data counts.
func (s *Staging) settle() (finished bool, err error) {
	data, err := os.ReadFile(s.planFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, os.RemoveAll(s.root())
	case err != nil:
		return false, fmt.Errorf("restore: %w", err)
	}
	var p plan
	if err := json.Unmarshal(data, &p); err != nil {
		return false, fmt.Errorf("%s is damaged (%w)", s.planFile(), err)
	}
	if err := s.finish(p); err != nil {
		return false, err
	}
	return true, os.RemoveAll(s.root())
}

// Switching says whether a restore into a data directory was cut short after its
// data was checked: Settle puts it in its place.
func Switching(dataDir string) bool { return exists(Staging{dir: dataDir}.planFile()) }

// Settle finishes a restore that was killed while it switched, or removes what one
// left that was killed before; whoever opens a data directory calls it first. It is
// an error while a restore is at work.
func Settle(dataDir string) (finished bool, err error) {
	if !exists(Staging{dir: dataDir}.root()) {
		return false, nil
	}
	s, err := take(dataDir)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.lock.Close()) }()
	return s.settle()
}
