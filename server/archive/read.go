package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// reader unpacks a tar that nobody has vouched for.
type reader struct {
	ctx     context.Context
	dir     string
	header  Header
	entries []unpacked
	list    int64 // listCost of the entries
	maxList int64
	buffer  []byte
}

// unpacked is a file that is there, as it was read.
type unpacked struct {
	path    string
	size    int64
	sum     [sha256.Size]byte
	damaged bool
}

// Unpack reads a backup into an empty directory and checks all of it: paths, sizes
// and hashes, and that every image has its blobs. An error that is ErrRefused
// speaks of the backup; what lies in dir then is worth nothing. It does
// not wait for the disk; Staging.Commit does.
func Unpack(ctx context.Context, r io.Reader, dir string) (Header, Report, error) {
	in := &reader{ctx: ctx, dir: dir, maxList: maxList, buffer: make([]byte, copyBuffer)}
	report, err := in.read(r)
	if err != nil {
		return Header{}, Report{}, err
	}
	if err := in.check(&report); err != nil {
		return Header{}, Report{}, err
	}
	return in.header, report, nil
}

// Peek reads the header of a backup alone, and returns a reader that has all of it.
func Peek(r io.Reader) (Header, io.Reader, error) {
	var seen bytes.Buffer
	in := &reader{}
	// Twice: for what tar may have before it.
	err := in.begin(tar.NewReader(io.TeeReader(io.LimitReader(r, 2*maxHeader), &seen)))
	return in.header, io.MultiReader(&seen, r), err
}

// begin reads the header.
func (r *reader) begin(t *tar.Reader) error {
	h, err := t.Next()
	switch {
	case errors.Is(err, io.EOF):
		return refusedf("it is empty: give a file that `trustcast backup` wrote")
	case err != nil:
		return r.unreadable(err, true)
	case h.Name != headerPath:
		return refusedf("it is no backup of trustcast (it has %q where the header should be): give a file that `trustcast backup` wrote", h.Name)
	}
	return r.readHeader(t)
}

// read unpacks entry by entry, and ends with the manifest.
func (r *reader) read(source io.Reader) (Report, error) {
	buffered := bufio.NewReaderSize(source, copyBuffer)
	t := tar.NewReader(buffered)
	if err := r.begin(t); err != nil {
		return Report{}, err
	}
	for {
		if err := r.ctx.Err(); err != nil {
			return Report{}, err
		}
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return Report{}, refusedf("it is cut off after %d files (its list of files is missing): use another backup", len(r.entries))
		case err != nil:
			return Report{}, r.unreadable(err, false)
		case h.Name == headerPath:
			return Report{}, refusedf("it is no backup of trustcast (it has %q where the header should not be): give a file that `trustcast backup` wrote", h.Name)
		case h.Name == manifestPath:
			report, err := r.manifest(t, h.Size)
			if err != nil {
				return Report{}, err
			}
			// To its end, so that whoever writes into a pipe can end as well, and
			// what encrypts it has seen all.
			if _, err := io.Copy(io.Discard, buffered); err != nil {
				return Report{}, r.unreadable(err, false)
			}
			return report, nil
		}
		if err := r.entry(t, h); err != nil {
			return Report{}, err
		}
	}
}

// unreadable words an error of the source.
func (r *reader) unreadable(err error, first bool) error {
	switch {
	case errors.Is(err, tar.ErrHeader) && first:
		return refusedf("it is no tar: give a file that `trustcast backup` wrote")
	case errors.Is(err, tar.ErrHeader):
		return refusedf("it is damaged after %d files: use another backup", len(r.entries))
	case errors.Is(err, io.ErrUnexpectedEOF) && first:
		return refusedf("it is no backup, or it is cut off after 0 files: use another backup, a file that `trustcast backup` wrote")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return refusedf("it is cut off after %d files: use another backup", len(r.entries))
	}
	return fmt.Errorf("read backup after %d files: %w; nothing was changed, use another backup", len(r.entries), err)
}

func (r *reader) readHeader(t io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(t, maxHeader+1))
	if err != nil {
		return r.unreadable(err, false)
	}
	r.entries = append(r.entries, unpacked{path: headerPath, size: int64(len(data)), sum: sha256.Sum256(data)})
	h := &r.header
	if err := json.Unmarshal(data, h); err != nil || len(data) > maxHeader || h.Format < 1 || h.Made.IsZero() {
		return refusedf("its header is damaged: use another backup")
	}
	if h.Format > Format {
		return refusedf("it has format %d, written by trustcast %s; this one reads up to %d: install that version", h.Format, h.Version, Format)
	}
	return nil
}

// entry unpacks a file, if it is one that may be there.
func (r *reader) entry(t *tar.Reader, h *tar.Header) error {
	name := h.Name
	if len(name) > maxName {
		return refusedf("it has a path of %d bytes, and no backup has one above %d", len(name), maxName)
	}
	if h.Typeflag == tar.TypeDir {
		if name = strings.TrimSuffix(name, "/"); path.IsAbs(name) || path.Clean(name) != name || !within(name) {
			return refusedf("it has a directory %q, which has no place in a backup", h.Name)
		}
		return nil // made with the first file in it
	}
	if h.Typeflag != tar.TypeReg {
		return refusedf("%q is no regular file but of tar's type %q", h.Name, h.Typeflag)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return refusedf("%q is a sparse file", h.Name)
		}
	}
	k, ok := kindOf(name)
	switch {
	case !ok:
		return refusedf("it has a file %q, which has no place in a backup", h.Name)
	case h.Size < 0 || k.limit > 0 && h.Size > k.limit:
		return refusedf("%q has %d bytes; at most %d are read", name, h.Size, k.limit)
	}
	if r.list += listCost(name); r.list > r.maxList {
		return refusedf("it has more than the %d files before %q, which no backup has: their list alone would take more than %d MiB of memory", len(r.entries), name, r.maxList>>20)
	}
	sum, err := r.unpack(t, name, h.Size, k)
	if err != nil {
		return err
	}
	r.entries = append(r.entries, unpacked{path: name, size: h.Size, sum: sum})
	return nil
}

// within says whether a directory can hold a file of a backup.
func within(dir string) bool {
	for _, root := range []string{"trustcast-backup", "state", "state/records", "state/keys", "auth", "certs", "docker", "docker/registry", registryRoot} {
		if dir == root {
			return true
		}
	}
	return strings.HasPrefix(dir, registryRoot+"/") || strings.HasPrefix(dir, "state/records/")
}

// unpack writes one file and returns its hash.
func (r *reader) unpack(t io.Reader, name string, size int64, k kind) (sum [sha256.Size]byte, err error) {
	if err := r.mkdir(path.Dir(name)); err != nil {
		return sum, err
	}
	f, err := os.OpenFile(r.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, k.mode)
	if errors.Is(err, fs.ErrExist) {
		return sum, refusedf("it has %q twice", name)
	}
	if err != nil {
		return sum, unpackError(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	for done := int64(0); done < size; {
		if err := r.ctx.Err(); err != nil {
			return sum, err
		}
		part := r.buffer[:min(int64(len(r.buffer)), size-done)]
		if _, err := io.ReadFull(t, part); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return sum, r.unreadable(err, false)
		}
		if _, err := f.Write(part); err != nil {
			return sum, unpackError(err)
		}
		_, _ = h.Write(part) // a hash takes every write
		done += int64(len(part))
	}
	h.Sum(sum[:0])
	return sum, nil
}

func (r *reader) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

// mkdir makes a directory and those that it is in, and asks the disk which are there:
// a hostile backup could have any number of them to remember.
func (r *reader) mkdir(name string) error {
	err := os.Mkdir(r.path(name), dirMode(name))
	if errors.Is(err, fs.ErrNotExist) && name != "." {
		if err := r.mkdir(path.Dir(name)); err != nil {
			return err
		}
		err = os.Mkdir(r.path(name), dirMode(name))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return unpackError(err)
	}
	return nil
}

// unpackError words an error of the disk.
func unpackError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("unpack: %w: old and new data need room at the same time; nothing was changed, make room or give another --data-dir", err)
	}
	return fmt.Errorf("unpack: %w; nothing was changed", err)
}

// manifest compares the list at the end with what was unpacked, and removes what it
// calls damaged.
func (r *reader) manifest(source io.Reader, size int64) (Report, error) {
	if size > 2*r.list+maxLine {
		return Report{}, refusedf("its list of files has %d bytes, too many for %d files: use another backup", size, len(r.entries))
	}
	lines := bufio.NewScanner(source)
	lines.Buffer(nil, maxLine)
	for i := range r.entries {
		var want entry
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &want) != nil {
			return Report{}, r.listError(lines.Err())
		}
		got := &r.entries[i]
		got.damaged = want.Damaged
		switch {
		case got.path != want.Path:
			return Report{}, refusedf("it has %q where its list of files has %q: use another backup", got.path, want.Path)
		case hex.EncodeToString(got.sum[:]) != want.SHA256 || got.size != want.Size:
			return Report{}, refusedf("%q is damaged: its content is not what the list of files says: use another backup", got.path)
		}
	}
	var report Report
	if !lines.Scan() {
		return Report{}, r.listError(lines.Err())
	}
	strict := json.NewDecoder(bytes.NewReader(lines.Bytes()))
	strict.DisallowUnknownFields() // a file that is in the list alone is no report
	if err := strict.Decode(&report); err != nil || report.Files != len(r.entries) || lines.Scan() {
		return Report{}, r.listError(lines.Err())
	}
	return report, nil
}

func (r *reader) listError(err error) error {
	if err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return r.unreadable(err, false)
	}
	return refusedf("its list of files is damaged: use another backup")
}
