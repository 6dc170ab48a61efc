package server

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/internal/durable"
)

// An archive is unpacked into adopting in the data directory, marked complete there
// with its hash, and only then moved to its place; the mark goes after the site record
// has come. So an Init that is cut off is repeated with the same archive.
const (
	adoptingDir  = ".adopting"
	completeMark = "complete"
)

// adoptedTops are the directories of a plain registry's data.
var adoptedTops = []string{"docker", "auth", "certs"}

// oldArchive is a tar of a plain registry's data, read once from end to end.
type oldArchive struct {
	path, hash string
	// prefix is what stands before the data in each name: "", or "data/".
	prefix string
}

// readArchive reads a tar, plain or gzip: its hash, and what decides. Names that lead
// out of it, links and devices refuse it as a whole; what is no part of a registry is
// passed over.
func readArchive(file string) (*oldArchive, oldFiles, error) {
	a := &oldArchive{path: file}
	var f oldFiles
	found := false
	sum, err := a.walk(func(h *tar.Header, r io.Reader) error {
		prefix, part, ok := split(h.Name)
		switch {
		case !ok:
			return nil
		case found && prefix != a.prefix:
			return fmt.Errorf("images, certs and auth are not side by side in it, but in %q and in %q", "/"+a.prefix, "/"+prefix)
		}
		found, a.prefix = true, prefix
		return f.take(part, h, r)
	})
	if err != nil {
		return nil, oldFiles{}, fmt.Errorf("adopt: %s is no usable tar of a registry's data: %w", file, err)
	}
	a.hash = sum
	return a, f, nil
}

// split finds the part of a plain registry's data in a name of the archive.
func split(name string) (prefix, part string, ok bool) {
	segments := strings.Split(path.Clean(name), "/")
	for i := range segments {
		part := strings.Join(segments[i:], "/")
		if part == imagesPart || strings.HasPrefix(part, imagesPart+"/") || slices.Contains([]string{caPart, certPart, keyPart, htpasswdPart}, part) {
			return strings.Join(segments[:i], "/"), part, true
		}
	}
	return "", "", false
}

// take notes one entry.
func (f *oldFiles) take(part string, h *tar.Header, r io.Reader) error {
	var into *[]byte
	switch part {
	case caPart:
		into = &f.ca
	case certPart:
		into = &f.cert
	case keyPart:
		into = &f.key
	case htpasswdPart:
		into = &f.htpasswd
	default:
		f.images = true
		if h.Typeflag == tar.TypeDir && path.Base(part) == "_manifests" {
			f.repositories++
		}
		return nil
	}
	if h.Typeflag != tar.TypeReg || h.Size > maxPart {
		return fmt.Errorf("%s is no file of at most %d bytes", h.Name, maxPart)
	}
	var err error
	*into, err = io.ReadAll(r)
	return err
}

// walk calls visit for each directory and regular file, and returns the hash of the
// whole file.
func (a *oldArchive) walk(visit func(*tar.Header, io.Reader) error) (hash string, err error) {
	file, err := os.Open(a.path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // it was only read
	sum := sha256.New()
	all := io.TeeReader(file, sum)
	buffered := bufio.NewReaderSize(all, 1<<20)
	plain, err := unzipped(buffered)
	if err != nil {
		return "", err
	}
	end := &ending{r: plain}
	for r := tar.NewReader(end); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			if _, err := io.Copy(io.Discard, io.MultiReader(end, buffered)); err != nil {
				return "", err
			}
			return hex.EncodeToString(sum.Sum(nil)), end.check()
		case err != nil:
			return "", err
		case h.Typeflag == tar.TypeXGlobalHeader:
			continue
		}
		if name := strings.TrimPrefix(h.Name, "./"); name != "" && !filepath.IsLocal(filepath.FromSlash(name)) {
			return "", fmt.Errorf("it has the name %q, which leads out of it", h.Name)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			if _, _, ours := split(h.Name); ours {
				return "", fmt.Errorf("%q is neither a file nor a directory", h.Name)
			}
			continue
		}
		if err := visit(h, r); err != nil {
			return "", err
		}
	}
}

// ending remembers the last bytes that were read: a tar ends with 1,024 zeros, and one
// that was cut off between two files looks whole but for them.
type ending struct {
	r    io.Reader
	last []byte
}

const endOfTar = 1024

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.last = append(e.last, p[max(0, n-endOfTar):n]...)
	e.last = e.last[max(0, len(e.last)-endOfTar):]
	return n, err
}

func (e *ending) check() error {
	if len(e.last) < endOfTar || len(bytes.Trim(e.last, "\x00")) > 0 {
		return errors.New("it was cut off: its end is missing")
	}
	return nil
}

func unzipped(r *bufio.Reader) (io.Reader, error) {
	if magic, err := r.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		return gzip.NewReader(r)
	}
	return r, nil
}

// fits: the data directory is absent or empty, or an Init with this archive was cut
// off there.
func (a *oldArchive) fits(dataDir string) error {
	if Initialized(dataDir) {
		return alreadyError(dataDir)
	}
	mark, err := os.ReadFile(filepath.Join(dataDir, adoptingDir, completeMark))
	switch {
	case err == nil && string(mark) == a.hash:
		return nil
	case err == nil:
		return fmt.Errorf("adopt: %s was being filled from another archive: repeat with that one, or empty the directory first", dataDir)
	}
	entries, err := os.ReadDir(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	for _, e := range entries {
		own := slices.Contains([]string{"state", adoptingDir, "lost+found"}, e.Name())
		if below, err := os.ReadDir(filepath.Join(dataDir, e.Name())); own || err == nil && len(below) == 0 {
			continue
		}
		return fmt.Errorf("adopt: %s is not empty (%s): an archive is unpacked into an empty --data-dir", dataDir, e.Name())
	}
	return nil
}

// unpack brings the archive's data to their places. The caller has the lock.
func (a *oldArchive) unpack(l layout) error {
	dir := filepath.Join(l.dir, adoptingDir)
	mark := filepath.Join(dir, completeMark)
	if _, err := os.Stat(mark); errors.Is(err, fs.ErrNotExist) {
		if err := a.extract(dir); err != nil {
			return errors.Join(fmt.Errorf("unpack %s: %w", a.path, err), os.RemoveAll(dir))
		}
		if err := syncAll(dir); err != nil {
			return fmt.Errorf("unpack %s: %w", a.path, err)
		}
		if err := durable.WriteFile(mark, []byte(a.hash), 0o600); err != nil {
			return err
		}
	}
	for _, top := range adoptedTops {
		from, to := filepath.Join(dir, "data", top), filepath.Join(l.dir, top)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue // not in the archive, or moved before a crash
		}
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty one
			return fmt.Errorf("unpack %s: %w", a.path, err)
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("unpack %s: %w", a.path, err)
		}
	}
	return syncAll(l.dir)
}

// syncAll makes durable whatever was written to the file system of dir: thousands of
// files at once, instead of one by one.
func syncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing was written to it
	return unix.Syncfs(int(d.Fd()))
}

// extract writes what is part of a registry under dir, anew.
func (a *oldArchive) extract(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	hash, err := a.walk(func(h *tar.Header, r io.Reader) error {
		prefix, part, ok := split(h.Name)
		if !ok || prefix != a.prefix {
			return nil
		}
		to := filepath.Join(dir, "data", filepath.FromSlash(part))
		if h.Typeflag == tar.TypeDir {
			return os.MkdirAll(to, 0o755)
		}
		return writeFrom(r, to, part == keyPart || part == htpasswdPart)
	})
	if err == nil && hash != a.hash {
		err = errors.New("it changed while it was read: repeat when nobody writes it")
	}
	return err
}

func writeFrom(r io.Reader, to string, private bool) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if private {
		mode = 0o600
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// done removes the mark: the registry is made.
func (a *oldArchive) done(l layout) error {
	if err := os.RemoveAll(filepath.Join(l.dir, adoptingDir)); err != nil {
		return fmt.Errorf("clear away what is left of unpacking: %w", err)
	}
	return nil
}
