package archive

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"
)

// copyBuffer is for blobs (bytes): large enough that reading and hashing take no
// more calls than they must.
const copyBuffer = 1 << 20

// File is a small file of the server's own.
type File struct {
	// Path is relative to the data directory, with slashes.
	Path string
	Data []byte
}

// Backup is what to write.
type Backup struct {
	Header Header
	// Files are the records, the keys that they name, users and certificates.
	Files []File
	// Dir is the data directory, of whose images all are taken unless the header
	// says otherwise. Nobody may remove blobs from it meanwhile; pushes may go on.
	Dir string
	// Progress is told how much is written and about how much it will be (bytes);
	// nil: nobody is.
	Progress func(written, total int64)

	// most replaces maxList in tests, which have not so many files.
	most int64
}

func (b Backup) maxList() int64 { return cmp.Or(b.most, maxList) }

// writer writes entries and remembers them for the manifest.
type writer struct {
	ctx      context.Context
	tar      *tar.Writer
	made     Header
	entries  []entry
	report   Report
	total    int64
	progress func(written, total int64)
	buffer   []byte
}

// Write writes the backup to w. Images whose data is damaged are left out and
// named in the report, which is no error; neither are images that come or go
// meanwhile.
func (b Backup) Write(ctx context.Context, w io.Writer) (Report, error) {
	out := &writer{ctx: ctx, tar: tar.NewWriter(w), made: b.Header, progress: b.Progress, buffer: make([]byte, copyBuffer)}
	if out.progress == nil {
		out.progress = func(int64, int64) {}
	}
	out.report.Damaged = []string{}
	if err := out.write(b); err != nil {
		return Report{}, fmt.Errorf("write backup: %w", err)
	}
	return out.report, nil
}

func (w *writer) write(b Backup) error {
	b.Header.Format = Format
	header, err := json.MarshalIndent(b.Header, "", "  ")
	if err != nil {
		return err
	}
	im := &images{}
	if !b.Header.WithoutImages {
		if im, err = gather(w.ctx, b.Dir); err != nil {
			return err
		}
		defer func() { _ = im.close() }() // read only
	}
	size, list := sizeOf(b.Files, im)
	if list > b.maxList() {
		return fmt.Errorf("the registry has too many files for one backup: their list takes %d MiB, and %d can be read back: make a backup --without-images, and save docker/ of the data directory by other means, such as a snapshot of its file system", list>>20, b.maxList()>>20)
	}
	w.total = int64(len(header)) + 1 + size
	if err := w.small(headerPath, append(header, '\n')); err != nil {
		return err
	}
	for _, f := range slices.SortedFunc(slices.Values(b.Files), func(a, b File) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) }) {
		if err := w.small(f.Path, f.Data); err != nil {
			return err
		}
	}
	if err := w.images(im); err != nil {
		return err
	}
	manifest, err := manifestOf(w.entries, w.report)
	if err != nil {
		return err
	}
	if err := w.header(manifestPath, int64(len(manifest)), kind{mode: 0o600}); err != nil {
		return err
	}
	if _, err := w.tar.Write(manifest); err != nil {
		return err
	}
	return w.tar.Close()
}

// sizeOf is what files, blobs and links come to, and what a reader keeps of them
// (bytes).
func sizeOf(files []File, im *images) (n, list int64) {
	for _, f := range files {
		n += int64(len(f.Data))
		list += listCost(f.Path)
	}
	for d, size := range im.sizes {
		n += size
		list += listCost(d.blobPath())
	}
	for name, d := range im.files() {
		n += int64(len(d))
		list += listCost(name)
	}
	return n, list
}

// images writes blobs, then the links to those that proved good.
func (w *writer) images(im *images) error {
	for _, d := range im.blobs() {
		if err := w.blob(im, d); err != nil {
			return err
		}
	}
	w.report.Damaged = append(w.report.Damaged, im.prune()...)
	w.report.Images = im.count()
	links := im.files()
	left, _ := sizeOf(nil, &images{repos: im.repos}) // what was pruned is not written
	w.total = w.report.Bytes + left
	for _, name := range slices.Sorted(maps.Keys(links)) {
		if err := w.small(name, []byte(links[name])); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) header(name string, size int64, k kind) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(k.mode), ModTime: w.made.Made.Truncate(1e9)})
}

// small writes a file that is in memory.
func (w *writer) small(name string, data []byte) error {
	k, ok := kindOf(name)
	if name == headerPath {
		k, ok = kind{mode: 0o600}, true
	}
	if !ok || k.limit > 0 && int64(len(data)) > k.limit {
		return fmt.Errorf("%s (%d bytes) has no place in a backup", name, len(data))
	}
	if err := w.header(name, int64(len(data)), k); err != nil {
		return err
	}
	if _, err := w.tar.Write(data); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	w.add(entry{Path: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Mode: k.octal()})
	return nil
}

func (w *writer) add(e entry) {
	w.entries = append(w.entries, e)
	w.report.Files++
	w.report.Bytes += e.Size
	w.progress(w.report.Bytes, max(w.total, w.report.Bytes))
}

// blob writes a blob while it checks its digest. Bytes that cannot be read are
// zeros in the tar, since their number is given already.
func (w *writer) blob(im *images, d digest) error {
	f, err := im.dir.File(inside(d.blobPath()))
	if err != nil {
		delete(im.sizes, d)
		im.damaged[d] = "it cannot be read (" + reasonOf(err) + ")"
		return nil
	}
	defer func() { _ = f.Close() }() // read only
	size := im.sizes[d]
	k, _ := kindOf(d.blobPath())
	if err := w.header(d.blobPath(), size, k); err != nil {
		return err
	}
	named := d.newHash()
	whole, sums := named, io.Writer(named)
	if algorithm, _ := d.parts(); algorithm != "sha256" { // the manifest's own
		whole = sha256.New()
		sums = io.MultiWriter(whole, named)
	}
	reason, err := w.copy(sums, f, size)
	if err != nil {
		return err
	}
	_, want := d.parts()
	if got := hex.EncodeToString(named.Sum(nil)); got != want && reason == "" {
		reason = "its content has the digest " + got
	}
	if reason != "" {
		im.damaged[d] = reason
	} else {
		w.report.Blobs++
	}
	w.add(entry{Path: d.blobPath(), Size: size, SHA256: hex.EncodeToString(whole.Sum(nil)), Mode: k.octal(), Damaged: reason != ""})
	return nil
}

// copy writes size bytes of f, and zeros for those that cannot be read, for which
// it gives the reason.
func (w *writer) copy(sums io.Writer, f io.Reader, size int64) (reason string, err error) {
	for done := int64(0); done < size; {
		if err := w.ctx.Err(); err != nil {
			return "", err
		}
		part := w.buffer[:min(int64(len(w.buffer)), size-done)]
		n := 0
		if reason == "" {
			var bad error
			if n, bad = io.ReadFull(f, part); bad != nil {
				reason = "it cannot be read to its end (" + reasonOf(bad) + ")"
			}
		}
		clear(part[n:])
		if _, err := w.tar.Write(part); err != nil {
			return "", err
		}
		_, _ = sums.Write(part) // hashes take every write
		done += int64(len(part))
		w.progress(w.report.Bytes+done, max(w.total, w.report.Bytes+done))
	}
	return reason, nil
}

// reasonOf is an error without the path, which stands beside it.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

func (d digest) newHash() hash.Hash {
	algorithm, _ := d.parts()
	return map[string]func() hash.Hash{"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}[algorithm]()
}

// manifestOf lists entries, one a line, and what they amount to in the last.
func manifestOf(entries []entry, r Report) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, e := range entries {
		if err := enc.Encode(e); err != nil {
			return nil, err
		}
	}
	err := enc.Encode(r)
	return out.Bytes(), err
}
