package registry

import (
	"context"
	"errors"
	"time"

	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
)

// repositories is where distribution keeps them in its storage.
const repositories = "/docker/registry/v2/repositories"

const (
	// purgeAge is how old an upload is when it is taken for abandoned, and
	// purgeEvery is how often such are removed: distribution's own defaults.
	purgeAge   = 7 * 24 * time.Hour
	purgeEvery = 24 * time.Hour
	// purgeFirst lets a start be over before the disk is walked.
	purgeFirst = 30 * time.Minute
)

// purge removes abandoned uploads from time to time: here, since replicas on the
// same data would all do it at the same time.
func (r *Registry) purge(ctx context.Context) {
	timer := time.NewTimer(purgeFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		r.purgeOnce(ctx)
		timer.Reset(purgeEvery)
	}
}

// purgeOnce removes uploads that began long ago. What it cannot remove is tried
// again the next time.
func (r *Registry) purgeOnce(ctx context.Context) {
	d, err := r.cfg.Driver(ctx)
	if err != nil {
		r.cfg.Log.Warn("abandoned uploads stay", "err", err)
		return
	}
	if _, err := d.Stat(ctx, repositories); errors.As(err, &driver.PathNotFoundError{}) {
		return // nothing was pushed yet
	}
	removed, errs := storage.PurgeUploads(ctx, d, time.Now().Add(-purgeAge), true)
	if len(removed) > 0 {
		r.cfg.Log.Info("abandoned uploads removed", "uploads", len(removed))
	}
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		r.cfg.Log.Warn("abandoned uploads stay", "err", err)
	}
}
