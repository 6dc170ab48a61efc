package direct

import (
	"os"
	"sync/atomic"

	"github.com/trustcast/trustcast/internal/below"
)

// files are the registry's, in distribution's layout.
type files struct {
	root string
	dir  atomic.Pointer[below.Dir] // nil until it was there
}

const (
	// top is in a directory of the server's own; below it replicas write.
	top          = "docker"
	repositories = "registry/v2/repositories/"
	blobs        = "registry/v2/blobs/sha256/"
	// longestLink is a digest's length and more than any that we follow.
	longestLink = 128
)

// below returns the open directory, which the first push makes.
func (f *files) below() (*below.Dir, error) {
	if dir := f.dir.Load(); dir != nil {
		return dir, nil
	}
	dir, err := below.Open(f.root)
	if err != nil {
		return nil, err
	}
	if !f.dir.CompareAndSwap(nil, dir) {
		return f.dir.Load(), dir.Close()
	}
	return dir, nil
}

func (f *files) close() error {
	if dir := f.dir.Swap(nil); dir != nil {
		return dir.Close()
	}
	return nil
}

// tag returns what a tag stands for.
func (f *files) tag(repository, tag string) (digest, bool) {
	return f.link(repositories + repository + "/_manifests/tags/" + tag + "/current/link")
}

// hasManifest says whether a manifest is in a repository.
func (f *files) hasManifest(repository string, d digest) bool {
	to, ok := f.link(repositories + repository + "/_manifests/revisions/sha256/" + string(d) + "/link")
	return ok && to == d
}

// hasBlob says whether a blob is in a repository.
func (f *files) hasBlob(repository string, d digest) bool {
	to, ok := f.link(repositories + repository + "/_layers/sha256/" + string(d) + "/link")
	return ok && to == d
}

func (f *files) link(name string) (digest, bool) {
	dir, err := f.below()
	if err != nil {
		return "", false
	}
	content, err := dir.Read(name, longestLink)
	if err != nil {
		return "", false
	}
	return parseDigest(string(content))
}

func data(d digest) string {
	return blobs + string(d[:2]) + "/" + string(d) + "/data"
}

// size of a blob that is there.
func (f *files) size(d digest) (int64, bool) {
	dir, err := f.below()
	if err != nil {
		return 0, false
	}
	size, err := dir.Size(data(d))
	return size, err == nil
}

// open opens a blob. Close it.
func (f *files) open(d digest) (*os.File, int64, error) {
	dir, err := f.below()
	if err != nil {
		return nil, 0, err
	}
	file, err := dir.File(data(d))
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, 0, err
	}
	return file, info.Size(), nil
}
