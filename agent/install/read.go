package install

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/foreign"
)

// Found is what one directory holds, as re-read.
type Found struct {
	// Runtime that reads it, see Place.
	Runtime string
	// Path of our file there; the place's directory when that cannot be used at all.
	Path string
	// Dir is the place's, see Place.
	Dir string
	// Roots in it; nil when it cannot be read.
	Roots []certs.Fingerprint
	// Fingerprint over them.
	Fingerprint certs.Fingerprint
	// Problem says why the runtime would not use it, or use something else.
	Problem string
	// Foreign: the Problem is of what others have put there, which stays.
	Foreign bool
	// Note says what works, and may yet be worth knowing.
	Note string
	// Aside: it is no part of evidence, see Place.
	Aside bool
}

// Read reads back what the runtimes will find for names.
func (h Host) Read(names []certs.Name, owned Owned) []Found {
	var all []Found
	for _, p := range h.Places {
		var read []Found
		err := p.with(func() error {
			for _, name := range p.targets(names, owned.Files) {
				read = append(read, p.read(name, owned))
			}
			return nil
		})
		var here []Found
		if err == nil {
			here = read
		} else {
			here = []Found{{Path: p.Dir, Problem: err.Error()}}
		}
		for _, f := range here {
			f.Runtime, f.Dir, f.Aside = p.Runtime, p.Dir, p.Aside
			all = append(all, f)
		}
	}
	return all
}

func (p Place) read(name string, owned Owned) Found {
	dir := filepath.Join(p.Dir, name)
	path, ok := ownedIn(dir, owned.Files)
	if !ok {
		path = filepath.Join(dir, fileName)
	}
	f := Found{Path: path}
	data, err := readFile(path, p.public(owned))
	if err != nil {
		f.Problem = err.Error()
		return f
	}
	roots, err := certs.ParsePEM(data)
	if err != nil {
		f.Problem = fmt.Sprintf("%s: %v", path, err)
		return f
	}
	f.Roots, f.Fingerprint = printsOf(roots), certs.FingerprintOf(roots...)
	f.Problem = p.breaks(dir, path)
	if hidden := p.hiddenBy(name, f.Roots); f.Problem == "" && hidden != "" {
		f.Problem = fmt.Sprintf("%s reads %s instead of %s, and not all of our CA is in there: remove that directory, or copy %s into it", p.Runtime, hidden, dir, path)
	}
	f.Foreign = f.Problem != ""
	if instead := filepath.Join(p.Dir, defaultDir); p.spells() && there(instead) {
		f.Note = fmt.Sprintf("%s stands before %s, which newer engines used for this registry until it was made", dir, instead)
	}
	return f
}

func printsOf(roots []*x509.Certificate) (prints []certs.Fingerprint) {
	for _, r := range roots {
		prints = append(prints, certs.FingerprintOf(r))
	}
	return prints
}

// readFile reads a regular file with the permissions that we give, in a directory that is
// no link; directories that we made have theirs: a rootless runtime is not root. It is on
// the way of each new CA, so it asks the kernel for little.
func readFile(path string, made []string) (content []byte, err error) {
	dir := filepath.Dir(path)
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		ours := slices.Contains(made, d)
		if d != dir && !ours {
			continue // others' ways to it are theirs
		}
		info, err := os.Lstat(d)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s cannot be read: %w", path, bare(err))
		case !info.IsDir():
			return nil, fmt.Errorf("%s is no directory, but a link or a file", d)
		case ours && !permitted(info, dirMode):
			return nil, fmt.Errorf("%s has other permissions than %04o", d, dirMode)
		}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) // no link is followed, no pipe waited at
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a link", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, bare(err))
	}
	defer func() { _ = f.Close() }() // read-only
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s cannot be read: %w", path, bare(err))
	case !info.Mode().IsRegular() || info.Size() > foreign.Largest:
		return nil, fmt.Errorf("%s is no file, or far too large", path)
	case !permitted(info, fileMode):
		return nil, fmt.Errorf("%s has other permissions than %04o", path, fileMode)
	}
	content = make([]byte, info.Size()+1)
	n, err := io.ReadFull(f, content)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%s cannot be read: %w", path, bare(err))
	}
	return content[:n], nil
}

// bare is an error without the path, which people are told already.
func bare(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// permitted: everybody may do what mode lets them do, and only the owner may write. More
// is not asked: some file systems have modes of their own.
func permitted(info fs.FileInfo, mode fs.FileMode) bool {
	return info.Mode().Perm()&mode == mode && info.Mode().Perm()&0o022 == 0
}

// hiddenBy is the directory that the runtime reads instead of ours, "" for none: one
// that it looks into before, and that has not all of our roots.
func (p Place) hiddenBy(name string, roots []certs.Fingerprint) string {
	for _, before := range p.Before {
		dir := filepath.Join(before, name)
		if there(dir) && !holds(dir, roots) {
			return dir
		}
	}
	return ""
}

// holds says whether the *.crt of a directory have all the roots.
func holds(dir string, roots []certs.Fingerprint) bool {
	entries, err := readDir(dir)
	if err != nil {
		return false
	}
	var have []certs.Fingerprint
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".crt" {
			continue
		}
		if data, err := readAny(filepath.Join(dir, e.Name())); err == nil {
			found, _ := certs.ParsePEM(data)
			have = append(have, printsOf(found)...)
		}
	}
	return !slices.ContainsFunc(roots, func(r certs.Fingerprint) bool { return !slices.Contains(have, r) })
}

// breaks says what in a directory makes the runtime fail every pull from the
// registry, or "": a *.crt that is no file, a client certificate without its
// key or the reverse, a hosts.toml that does not name our file.
func (p Place) breaks(dir, ours string) string {
	entries, err := readDir(dir)
	if err != nil {
		return err.Error()
	}
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Name()] = true
	}
	who := p.calls()
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		switch filepath.Ext(name) {
		case ".crt":
			info, err := os.Stat(path)
			if err != nil {
				return fmt.Sprintf("%s cannot be read (%v); %s fails every pull over it: remove it", path, err, who)
			}
			if info.IsDir() {
				return fmt.Sprintf("%s is a directory; %s fails every pull over it: remove it", path, who)
			}
		case ".cert":
			if key := strings.TrimSuffix(name, ".cert") + ".key"; !have[key] {
				return fmt.Sprintf("%s has no %s beside it; %s fails every pull over it: add or remove one", path, key, who)
			}
		case ".key":
			if cert := strings.TrimSuffix(name, ".key") + ".cert"; !have[cert] {
				return fmt.Sprintf("%s has no %s beside it; %s fails every pull over it: add or remove one", path, cert, who)
			}
		}
	}
	if p.spells() && have["hosts.toml"] {
		return hostsTOML(filepath.Join(dir, "hosts.toml"), ours)
	}
	return ""
}

// calls is the runtime as people call it.
func (p Place) calls() string {
	switch p.Runtime {
	case RuntimeContainers:
		return "podman"
	case RuntimeContainerd:
		return RuntimeContainerd
	}
	return "Docker"
}

// hostsTOML says what a hosts.toml lacks: unless it is empty, only the files that it
// names are sure to be read.
func hostsTOML(path, ours string) string {
	data, err := readAny(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return ""
	}
	if err != nil {
		return fmt.Sprintf("%s cannot be read: %v", path, err)
	}
	hosts := false
	for line := range strings.Lines(string(data)) {
		table, is := strings.CutPrefix(strings.TrimSpace(line), "[")
		hosts = hosts || is && strings.HasPrefix(strings.TrimSpace(table), "host")
		for _, text := range tomlStrings(line) {
			if text == ours || text == filepath.Base(ours) {
				return ""
			}
		}
	}
	if !hosts {
		return fmt.Sprintf("%s has no [host] table: containerd 1 passes such a file over and reads the *.crt beside it, newer ones may read nothing else: add a [host] table of this registry, and below it ca = %q", path, ours)
	}
	return fmt.Sprintf("%s is there, and so *.crt beside it are not read: add the line ca = %q at its top, and below each [host] of this registry", path, ours)
}
