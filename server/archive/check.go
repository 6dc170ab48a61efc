package archive

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// check looks at what was unpacked as a whole: blobs are what their paths say, and
// images are complete.
func (r *reader) check(report *Report) error {
	for _, e := range r.entries {
		d, isBlob := blobOf(e.path)
		switch {
		case e.damaged && !isBlob:
			return refusedf("its list of files calls %q damaged", e.path)
		case e.damaged:
			if err := os.Remove(r.path(e.path)); err != nil {
				return unpackError(err)
			}
		case isBlob:
			if err := r.checkBlob(d, hex.EncodeToString(e.sum[:])); err != nil {
				return err
			}
		}
	}
	return r.checkImages(report)
}

func (r *reader) checkImages(report *Report) error {
	im, err := gather(r.ctx, r.dir)
	if err != nil {
		return err
	}
	defer func() { _ = im.close() }() // read only
	links := im.files()
	if lost := im.prune(); len(lost) > 0 {
		return refusedf("an image is incomplete (%s): use another backup", lost[0])
	}
	report.Images = im.count()
	for _, e := range r.entries {
		if path.Base(e.path) != "link" {
			continue
		}
		if _, ok := links[e.path]; !ok {
			return refusedf("the link %q leads nowhere: use another backup", e.path)
		}
	}
	if kept := im.countLinks(); kept != len(links) {
		return refusedf("%d links to images lead nowhere: use another backup", len(links)-kept)
	}
	return nil
}

// blobOf returns the digest that a path says.
func blobOf(name string) (digest, bool) {
	rest, ok := strings.CutPrefix(name, registryRoot+"/blobs/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 4 {
		return "", false
	}
	return digest(parts[0] + ":" + parts[2]), true
}

// checkBlob: content and path agree.
func (r *reader) checkBlob(d digest, sum string) error {
	if !validDigest().MatchString(string(d)) {
		return refusedf("%q is no digest", d)
	}
	algorithm, want := d.parts()
	if algorithm != "sha256" {
		f, err := os.Open(r.path(d.blobPath()))
		if err != nil { // the two digits before it are another's
			return refusedf("blob %s is at the wrong place", d)
		}
		defer func() { _ = f.Close() }() // read only
		h := d.newHash()
		if _, err := io.Copy(h, f); err != nil {
			return fmt.Errorf("check blob: %w", err)
		}
		sum = hex.EncodeToString(h.Sum(nil))
	}
	if sum != want {
		return refusedf("blob %s is damaged: its content has the digest %s: use another backup", d, sum)
	}
	return nil
}

// syncAll waits until everything on the file system of dir is on its disk: one call
// instead of one for each of many small files.
func syncAll(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer func() { _ = d.Close() }() // read-only handle
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", dir, err)
	}
	return nil
}
