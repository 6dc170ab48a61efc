package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"path/filepath"
	"strings"

	"github.com/distribution/distribution/v3/registry/storage/driver"

	"github.com/trustcast/trustcast/internal/below"
)

// maxContent bounds what is read whole (bytes): distribution takes manifests of 4 MiB.
const maxContent = 8 << 20

// rooted is the storage of the images for this process's own work: collections and the
// removal of uploads. Replicas write there, and one that somebody has taken over could
// leave links to keys, pipes and endless files. So it goes where only directories and
// files lead, and writes nothing.
type rooted struct{ dir string } // the data directory

var _ driver.StorageDriver = rooted{}

// at calls do with what a storage's path is below docker/.
func (r rooted) at(p string, do func(d *below.Dir, name string) error) (err error) {
	name, ok := strings.CutPrefix(path.Clean(p), "/"+blobsDir)
	if !ok {
		return driver.InvalidPathError{Path: p, DriverName: r.Name()}
	}
	d, err := below.Open(filepath.Join(r.dir, blobsDir))
	if err == nil {
		err = errors.Join(do(d, path.Join(".", name)), d.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return driver.PathNotFoundError{Path: p, DriverName: r.Name()}
	}
	if errors.Is(err, below.ErrForeign) {
		return fmt.Errorf("%w: look who can write in %s, then remove it", err, filepath.Join(r.dir, blobsDir))
	}
	return err
}

// Name returns that of distribution's driver for files.
func (rooted) Name() string { return "filesystem" }

// GetContent reads a small file.
func (r rooted) GetContent(_ context.Context, p string) (content []byte, err error) {
	err = r.at(p, func(d *below.Dir, name string) error {
		content, err = d.Read(name, maxContent)
		return err
	})
	return content, err
}

// Reader reads a file from offset on.
func (r rooted) Reader(_ context.Context, p string, offset int64) (reader io.ReadCloser, err error) {
	err = r.at(p, func(d *below.Dir, name string) error {
		f, err := d.File(name)
		if err != nil {
			return err
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return errors.Join(err, f.Close())
		}
		reader = f
		return nil
	})
	return reader, err
}

// Stat looks at a file or directory.
func (r rooted) Stat(_ context.Context, p string) (info driver.FileInfo, err error) {
	err = r.at(p, func(d *below.Dir, name string) error {
		found, err := d.Stat(name)
		if err != nil {
			return err
		}
		info = driver.FileInfoInternal{FileInfoFields: driver.FileInfoFields{
			Path: p, Size: found.Size(), ModTime: found.ModTime(), IsDir: found.IsDir(),
		}}
		return nil
	})
	return info, err
}

// List returns the paths of what is in a directory.
func (r rooted) List(_ context.Context, p string) (list []string, err error) {
	err = r.at(p, func(d *below.Dir, name string) error {
		entries, err := d.List(name)
		for _, e := range entries {
			list = append(list, path.Join(p, e.Name()))
		}
		return err
	})
	return list, err
}

// Delete removes a file or a directory with all that is in it.
func (r rooted) Delete(_ context.Context, p string) error {
	return r.at(p, func(d *below.Dir, name string) error {
		if _, err := d.Stat(name); err != nil {
			return err
		}
		return d.Remove(name)
	})
}

// Walk visits everything below a path.
func (r rooted) Walk(ctx context.Context, from string, f driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	return driver.WalkFallback(ctx, r, from, f, options...)
}

// PutContent is not for this process.
func (r rooted) PutContent(context.Context, string, []byte) error { return r.unsupported() }

// Writer is not for this process.
func (r rooted) Writer(context.Context, string, bool) (driver.FileWriter, error) {
	return nil, r.unsupported()
}

// Move is not for this process.
func (r rooted) Move(context.Context, string, string) error { return r.unsupported() }

// RedirectURL says that there is none.
func (rooted) RedirectURL(*http.Request, string) (string, error) { return "", nil }

func (r rooted) unsupported() error { return driver.ErrUnsupportedMethod{DriverName: r.Name()} }
