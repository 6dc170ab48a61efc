package registry

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// collectYoungest is the default of CollectOptions.Youngest: the layers of a push
// come up to so long before the manifest that needs them.
const collectYoungest = time.Hour

// CollectOptions say what a collection removes.
type CollectOptions struct {
	// DryRun counts, and removes nothing.
	DryRun bool
	// Untagged removes manifests that neither a tag nor a tagged index names, too.
	Untagged bool
	// Youngest is the age from which something may go. Default one hour.
	Youngest time.Duration
}

// Collected is what a collection removed, or would remove.
type Collected struct {
	Blobs, Manifests int
	// Uploads are those with which nobody went on for so long as nothing is too young.
	Uploads int
	Bytes   int64
	// Spared are blobs that no image needs but that are too young.
	Spared int
}

// Collect removes blobs that no image needs. Writes wait at the edge from before the
// first look until the last removal; reads go on. What an upload that is under way
// has brought already is younger than opts.Youngest, and stays. Cut off at any
// moment it loses nothing that an image needs: a manifest goes before its blobs.
func (r *Registry) Collect(ctx context.Context, opts CollectOptions, say func(string)) (Collected, error) {
	if r.cfg.Driver == nil {
		return Collected{}, fmt.Errorf("%w: the %s engine has no images that could be collected", ErrInvalid, r.cfg.Engine.Name())
	}
	if r.cfg.Cache == "redis" {
		return Collected{}, fmt.Errorf("%w: replicas remember in Redis which blobs exist, and would take those for existing that are removed: leave storage.cache out, empty that Redis, restart the server, then collect", ErrInvalid)
	}
	ctx, cancel, err := r.detach(ctx)
	if err != nil {
		return Collected{}, err
	}
	defer cancel()
	release, err := hold(ctx, r.images)
	if err != nil {
		return Collected{}, err
	}
	defer release()
	if !opts.DryRun {
		say("writes wait from now on; reads go on")
		r.holdWrites(true)
		defer r.holdWrites(false)
		if err := r.quiet(ctx); err != nil {
			return Collected{}, err
		}
	}
	d, err := r.cfg.Driver(ctx)
	if err != nil {
		return Collected{}, err
	}
	began := time.Now()
	got, err := collect(ctx, d, opts, began, say)
	if !opts.DryRun && r.state() != Stopped && r.outdates(got) { // also after an error: some are gone
		say("replicas that remember what was there, or have it open, are replaced")
		restarted := r.restart(ctx, say)
		if r.state() != Stopped { // else none is left that remembers
			err = errors.Join(err, restarted)
		}
	}
	if err == nil && !opts.DryRun {
		r.cfg.Log.Info("garbage collected", "blobs", got.Blobs, "manifests", got.Manifests, "uploads", got.Uploads, "bytes", got.Bytes, "spared", got.Spared, "took", time.Since(began).Round(time.Millisecond))
	}
	return got, err
}

// outdates says whether replicas would go on with what was removed: they remember which
// blobs exist, or have an upload open, whose bytes are not free then. distribution
// leaves its file open when it could not write down how far the upload came, as on a
// full disk, until its next garbage collection. This process collects when it rests.
func (r *Registry) outdates(got Collected) bool {
	return r.cfg.Cache == "inmemory" && got.Blobs > 0 || r.cfg.Image != "" && got.Uploads > 0
}

// quietLimit is how long writes in flight may take to end while others wait: longer
// than a layer takes on most lines.
const quietLimit = 2 * time.Minute

// quiet waits until no write is in flight.
func (r *Registry) quiet(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	err := r.cfg.Front.Quiet(limited)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: a push takes longer than %s, and others wait for this collection meanwhile: collect when fewer push (%w)", ErrNotNow, quietLimit, err)
}

func (r *Registry) holdWrites(is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collecting = is
	r.setGate()
}

// collect is Collect without the edge.
func collect(ctx context.Context, d driver.StorageDriver, opts CollectOptions, now time.Time, say func(string)) (Collected, error) {
	if opts.Youngest == 0 {
		opts.Youngest = collectYoungest
	}
	if _, err := d.Stat(ctx, repositories); errors.As(err, &driver.PathNotFoundError{}) {
		say("nothing was pushed yet")
		return Collected{}, nil
	}
	b := &broom{StorageDriver: d, dry: opts.DryRun, before: now.Add(-opts.Youngest), gone: map[string]bool{}, needed: map[string]bool{}}
	images, err := storage.NewRegistry(ctx, b, storage.EnableDelete)
	if err != nil {
		return Collected{}, fmt.Errorf("open the images: %w", err)
	}
	if opts.Untagged {
		say("looking for manifests without a tag")
		if err := b.removeUntagged(ctx, images); err != nil {
			return b.Collected, err
		}
	}
	say("looking for uploads that nobody goes on with")
	if err := b.removeUploads(ctx); err != nil {
		return b.Collected, err
	}
	say("looking for what uploads that are under way have brought")
	if err := b.spareYoungLinks(ctx); err != nil {
		return b.Collected, err
	}
	say("marking what images need, then removing the rest")
	// Quiet: it would print on the server's standard output.
	err = storage.MarkAndSweep(ctx, b, images, storage.GCOpts{Quiet: true})
	if err != nil {
		return b.Collected, fmt.Errorf("collect garbage, which may be repeated: %w", err)
	}
	return b.Collected, nil
}

// removeUntagged removes manifests that are old enough and that neither a tag, nor
// an index with one, names.
func (b *broom) removeUntagged(ctx context.Context, images distribution.Namespace) error {
	list, ok := images.(distribution.RepositoryEnumerator)
	if !ok {
		return errors.New("the images cannot be listed")
	}
	err := list.Enumerate(ctx, func(repo string) error {
		named, err := reference.WithName(repo)
		if err != nil {
			return err
		}
		repository, err := images.Repository(ctx, named)
		if err != nil {
			return err
		}
		return b.removeUntaggedOf(ctx, repository)
	})
	if err != nil && !errors.As(err, &driver.PathNotFoundError{}) {
		return fmt.Errorf("look for untagged manifests: %w", err)
	}
	return nil
}

func (b *broom) removeUntaggedOf(ctx context.Context, repository distribution.Repository) error {
	manifests, err := repository.Manifests(ctx)
	if err != nil {
		return err
	}
	list, ok := manifests.(distribution.ManifestEnumerator)
	if !ok {
		return errors.New("the manifests cannot be listed")
	}
	tags, err := repository.Tags(ctx).All(ctx)
	if err != nil && !errors.As(err, &distribution.ErrRepositoryUnknown{}) {
		return err
	}
	kept := map[digest.Digest]bool{}
	for _, tag := range tags {
		tagged, err := repository.Tags(ctx).Get(ctx, tag)
		if err != nil {
			return fmt.Errorf("tag %s of %s: %w", tag, repository.Named().Name(), err)
		}
		if err := keep(ctx, manifests, tagged.Digest, kept); err != nil {
			return fmt.Errorf("tag %s of %s: %w", tag, repository.Named().Name(), err)
		}
	}
	var all []digest.Digest
	if err := list.Enumerate(ctx, func(d digest.Digest) error { all = append(all, d); return nil }); err != nil && !errors.As(err, &driver.PathNotFoundError{}) {
		return err
	}
	vacuum := storage.NewVacuum(ctx, b)
	for _, d := range all {
		if kept[d] || b.isYoung(ctx, manifestLink(repository.Named().Name(), d)) {
			continue
		}
		if err := vacuum.RemoveManifest(repository.Named().Name(), d, tags); err != nil {
			return err
		}
		b.Manifests++
	}
	return nil
}

// keep marks a manifest and the manifests that it names.
func keep(ctx context.Context, manifests distribution.ManifestService, d digest.Digest, kept map[digest.Digest]bool) error {
	if kept[d] {
		return nil
	}
	if there, err := manifests.Exists(ctx, d); err != nil || !there {
		return err // a layer, a config, or a manifest that another registry has
	}
	kept[d] = true
	m, err := manifests.Get(ctx, d)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	for _, named := range m.References() {
		if err := keep(ctx, manifests, named.Digest, kept); err != nil {
			return err
		}
	}
	return nil
}

func manifestLink(repo string, d digest.Digest) string {
	return path.Join(repositories, repo, "_manifests/revisions", d.Algorithm().String(), d.Encoded(), "link")
}
