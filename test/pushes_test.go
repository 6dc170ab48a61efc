package test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/trustcast/trustcast/test/images"
)

// pushes are those of some clients at once, which go on until end.
type pushes struct {
	ctx context.Context // over when they ended, also because one failed
	end func() error

	mu sync.Mutex
	// acknowledged are the digests by reference; guarded by mu.
	acknowledged map[string]v1.Hash
}

// startPushes pushes with so many clients, at the latest until the test ends.
func startPushes(t *testing.T, c client, clients int) *pushes {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	p := &pushes{ctx: ctx, acknowledged: map[string]v1.Hash{}}
	for who := range clients {
		group.Go(func() error { return p.push(c, who) })
	}
	p.end = sync.OnceValue(func() error {
		cancel()
		return group.Wait()
	})
	t.Cleanup(func() { _ = p.end() }) // who did not ask has failed before
	return p
}

// push pushes images, and now and then an index. Each has a tag of its own; one tag
// moves. A push that the end cuts is none.
func (p *pushes) push(c client, who int) error {
	options := append(append([]remote.Option(nil), c.options...), remote.WithContext(p.ctx))
	for i := 0; p.ctx.Err() == nil; i++ {
		ref, err := name.NewTag(fmt.Sprintf("%s/team-%d/app:v%d", registryName, who, i))
		if err != nil {
			return err
		}
		write := writeImage
		if i%5 == 4 {
			write = writeIndex
		}
		h, err := write(ref, options)
		switch {
		case p.ctx.Err() != nil:
			return nil //nolint:nilerr // it was cut
		case err != nil:
			return fmt.Errorf("push %s: %w", ref, err)
		}
		p.mu.Lock()
		p.acknowledged[ref.String()] = h
		p.mu.Unlock()
	}
	return nil
}

func writeImage(ref name.Tag, options []remote.Option) (v1.Hash, error) {
	image, err := random.Image(100_000, 3)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := errors.Join(remote.Write(ref, image, options...), remote.Tag(ref.Context().Tag("latest"), image, options...)); err != nil {
		return v1.Hash{}, err
	}
	return image.Digest()
}

func writeIndex(ref name.Tag, options []remote.Option) (v1.Hash, error) {
	index, err := random.Index(20_000, 2, 3)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := remote.WriteIndex(ref, index, options...); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

// soFar is what was acknowledged until now.
func (p *pushes) soFar() map[string]v1.Hash {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.acknowledged)
}

// await waits until so many are acknowledged.
func (p *pushes) await(t *testing.T, least int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(p.soFar()) < least; time.Sleep(time.Millisecond) {
		if p.ctx.Err() != nil || time.Now().After(deadline) {
			t.Fatalf("%d pushes are acknowledged and not %d: they ended with %v", len(p.soFar()), least, p.end())
		}
	}
}

// content is what a registry has: each tag's digest, and how many manifests were
// pulled by their digest.
type content struct {
	tags      map[string]v1.Hash
	manifests int
}

// pullAll pulls all that a registry has, by tag and by digest: an error unless each
// blob of it comes with the digest that it is named by.
func pullAll(ctx context.Context, c client) (content, error) {
	all := content{tags: map[string]v1.Hash{}}
	options := append(append([]remote.Option(nil), c.options...), remote.WithContext(ctx))
	reg, err := name.NewRegistry(registryName)
	if err != nil {
		return all, err
	}
	repos, err := remote.Catalog(ctx, reg, options...)
	if err != nil {
		return all, err
	}
	for _, repo := range repos {
		tags, err := remote.List(reg.Repo(repo), options...)
		if err != nil {
			return all, err
		}
		for _, tg := range tags {
			ref := reg.Repo(repo).Tag(tg)
			d, err := remote.Get(ref, options...)
			if err != nil {
				return all, err
			}
			all.tags[ref.String()] = d.Digest
			n, err := pullDigest(reg.Repo(repo).Digest(d.Digest.String()), options)
			if err != nil {
				return all, fmt.Errorf("pull %s: %w", ref, err)
			}
			all.manifests += n
		}
	}
	return all, nil
}

// pullDigest pulls an image, or an index with its images, and returns how many
// manifests they are.
func pullDigest(ref name.Digest, options []remote.Option) (manifests int, err error) {
	d, err := remote.Get(ref, options...)
	if err != nil {
		return 0, err
	}
	if !d.MediaType.IsIndex() {
		image, err := d.Image()
		if err != nil {
			return 0, err
		}
		return 1, images.Whole(image)
	}
	index, err := d.ImageIndex()
	if err != nil {
		return 0, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return 0, err
	}
	manifests = 1
	for _, child := range m.Manifests {
		n, err := pullDigest(ref.Context().Digest(child.Digest.String()), options)
		if err != nil {
			return 0, err
		}
		manifests += n
	}
	return manifests, nil
}
