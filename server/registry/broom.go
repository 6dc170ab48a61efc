package registry

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
)

// blobTree is where distribution keeps them in its storage.
const blobTree = "/docker/registry/v2/blobs"

// broom is a storage for a collection: removals are counted, spare what is young,
// and are only pretended in a dry run.
type broom struct {
	driver.StorageDriver
	Collected

	dry    bool
	before time.Time       // what changed later is young
	gone   map[string]bool // paths whose removal was pretended
	needed map[string]bool // paths of blobs that young links name
}

// isYoung: what cannot be looked at is as good as old, its removal will tell.
func (b *broom) isYoung(ctx context.Context, p string) bool {
	info, err := b.StorageDriver.Stat(ctx, p)
	return err == nil && info.ModTime().After(b.before)
}

// spareYoungLinks notes the blobs that repositories got lately, also those that had
// been there before: a push that found one there does not bring it again.
func (b *broom) spareYoungLinks(ctx context.Context) error {
	err := b.Walk(ctx, repositories, func(info driver.FileInfo) error {
		p := info.Path()
		if info.IsDir() || !strings.Contains(p, "/_layers/") || path.Base(p) != "link" || !info.ModTime().After(b.before) {
			return nil
		}
		encoded := path.Base(path.Dir(p))
		if len(encoded) < 2 {
			return nil
		}
		b.needed[path.Join(blobTree, path.Base(path.Dir(path.Dir(p))), encoded[:2], encoded)] = true
		return nil
	})
	if err != nil && !errors.As(err, &driver.PathNotFoundError{}) {
		return fmt.Errorf("look for young layers: %w", err)
	}
	return nil
}

// begun is an upload.
type begun struct {
	bytes int64
	young bool // somebody went on with it lately
}

// removeUploads removes uploads with which nobody went on lately.
func (b *broom) removeUploads(ctx context.Context) error {
	uploads := map[string]begun{} // by path
	err := b.Walk(ctx, repositories, func(info driver.FileInfo) error {
		before, after, found := strings.Cut(info.Path(), "/_uploads/")
		if !found || info.IsDir() {
			return nil
		}
		id, _, _ := strings.Cut(after, "/")
		u := uploads[before+"/_uploads/"+id]
		u.bytes += info.Size()
		u.young = u.young || info.ModTime().After(b.before)
		uploads[before+"/_uploads/"+id] = u
		return nil
	})
	if err != nil && !errors.As(err, &driver.PathNotFoundError{}) {
		return fmt.Errorf("look for uploads: %w", err)
	}
	for p, u := range uploads {
		if u.young {
			continue
		}
		if err := b.Delete(ctx, p); err != nil {
			return fmt.Errorf("remove an upload: %w", err)
		}
		b.Uploads++
		b.Bytes += u.bytes
	}
	return nil
}

// Delete removes, counts, spares or pretends.
func (b *broom) Delete(ctx context.Context, p string) error {
	switch {
	case strings.HasPrefix(p, blobTree+"/"):
		info, err := b.StorageDriver.Stat(ctx, path.Join(p, "data"))
		if err == nil && (b.needed[p] || info.ModTime().After(b.before)) {
			b.Spared++
			return nil
		}
		b.Blobs++
		if err == nil {
			b.Bytes += info.Size()
		}
	case strings.Contains(p, "/_layers/") && b.isYoung(ctx, p): // the link itself
		return nil
	}
	if b.dry {
		b.gone[p] = true
		return nil
	}
	err := b.StorageDriver.Delete(ctx, p)
	if errors.As(err, &driver.PathNotFoundError{}) {
		return nil // a collection that was cut off has removed it
	}
	return err
}

func (b *broom) isGone(p string) bool {
	if len(b.gone) == 0 {
		return false
	}
	for ; p != "/" && p != "."; p = path.Dir(p) {
		if b.gone[p] {
			return true
		}
	}
	return false
}

func (b *broom) notFound(p string) error {
	return driver.PathNotFoundError{Path: p, DriverName: b.Name()}
}

// GetContent does not see what is gone.
func (b *broom) GetContent(ctx context.Context, p string) ([]byte, error) {
	if b.isGone(p) {
		return nil, b.notFound(p)
	}
	return b.StorageDriver.GetContent(ctx, p)
}

// Stat does not see what is gone.
func (b *broom) Stat(ctx context.Context, p string) (driver.FileInfo, error) {
	if b.isGone(p) {
		return nil, b.notFound(p)
	}
	return b.StorageDriver.Stat(ctx, p)
}

// List does not see what is gone.
func (b *broom) List(ctx context.Context, p string) ([]string, error) {
	if b.isGone(p) {
		return nil, b.notFound(p)
	}
	list, err := b.StorageDriver.List(ctx, p)
	return slices.DeleteFunc(list, b.isGone), err
}

// Walk goes by List and Stat.
func (b *broom) Walk(ctx context.Context, from string, f driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	return driver.WalkFallback(ctx, b, from, f, options...)
}
