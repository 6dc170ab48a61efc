package registry

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"

	"github.com/trustcast/trustcast/server/registry/parameters"
)

const (
	// repositories is where distribution keeps them under the root.
	repositories = "/docker/registry/v2/repositories"

	// purgeFirst lets a start be over before the disk is walked.
	purgeFirst = 30 * time.Minute
)

// keepPurging removes abandoned uploads from time to time until ctx ends: here, since
// replicas on the same data would all do it at the same time.
func (r *Registry) keepPurging(ctx context.Context) error {
	timer := time.NewTimer(purgeFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		r.purge(ctx)
		timer.Reset(r.cfg.Purge.Every)
	}
}

// purge removes uploads that began long ago. What it cannot remove is tried again the
// next time.
func (r *Registry) purge(ctx context.Context) {
	d, err := r.cfg.Driver(ctx)
	if err == nil {
		err = purgeOnce(ctx, d, r.cfg.Purge, r.cfg.Log)
	}
	if err != nil && ctx.Err() == nil {
		r.cfg.Log.Warn("abandoned uploads stay", "err", err)
	}
}

func purgeOnce(ctx context.Context, d driver.StorageDriver, p parameters.Purge, log *slog.Logger) error {
	if _, err := d.Stat(ctx, repositories); errors.As(err, &driver.PathNotFoundError{}) {
		return nil // nothing was pushed yet
	}
	found, errs := storage.PurgeUploads(ctx, d, time.Now().Add(-p.Age), !p.DryRun)
	switch {
	case len(found) == 0:
	case p.DryRun:
		log.Info("abandoned uploads found, and kept as configured", "uploads", len(found))
	default:
		log.Info("abandoned uploads removed", "uploads", len(found))
	}
	return errors.Join(errs...)
}
