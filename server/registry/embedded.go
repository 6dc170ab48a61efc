package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the storage driver
)

const (
	storageDriver = "filesystem"
	// repositories is where distribution keeps them under the root.
	repositories = "/docker/registry/v2/repositories"

	// pageSize of catalogs and tag lists, distribution's own default.
	pageSize = 1000

	// purgeAge is how old an upload is when it is taken for abandoned, and
	// purgeEvery is how often such are removed: distribution's own defaults.
	purgeAge   = 7 * 24 * time.Hour
	purgeEvery = 24 * time.Hour
	// purgeFirst lets a start be over before the disk is walked.
	purgeFirst = 30 * time.Minute
)

// EmbeddedConfig is for NewEmbedded. Root is needed.
type EmbeddedConfig struct {
	// Root is the data directory; blobs land in Root/docker/registry/v2.
	Root string
	// HTTPSecret signs the state of uploads that clients carry; engines on the
	// same data need the same one. Default: random, so that an upload begun
	// before a restart starts over.
	HTTPSecret string
	// Log takes distribution's errors and warnings, and what was purged.
	// Default: discard.
	Log *slog.Logger
}

// Embedded is distribution in this process. It is safe for concurrent use.
type Embedded struct {
	app    *handlers.App
	driver driver.StorageDriver
	log    *slog.Logger
}

var _ Engine = (*Embedded)(nil)

// NewEmbedded returns an engine over cfg.Root. It takes over the process's only
// logrus logger, which distribution writes to. One goroutine of distribution's
// that waits for notifications nobody sends stays until the process ends.
func NewEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	info, err := os.Stat(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("open the registry's data: %w: give the data directory with --data-dir", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open the registry's data: %s is no directory: give the data directory with --data-dir", cfg.Root)
	}
	steerLogs(cfg.Log)
	ctx = context.WithoutCancel(ctx) // requests outlive a stop until they are drained
	d, err := factory.Create(ctx, storageDriver, configuration.Parameters{"rootdirectory": cfg.Root})
	if err != nil {
		return nil, fmt.Errorf("open the registry's data in %s: %w", cfg.Root, err)
	}
	app, err := newApp(ctx, cfg.configuration())
	if err != nil {
		return nil, fmt.Errorf("start the embedded registry on %s: %w", cfg.Root, err)
	}
	return &Embedded{app: app, driver: d, log: cfg.Log}, nil
}

// configuration is distribution's, made here and not parsed, so that no
// REGISTRY_ variable of the environment gets in unseen.
func (cfg EmbeddedConfig) configuration() *configuration.Configuration {
	secret := cfg.HTTPSecret
	if secret == "" {
		secret = rand.Text() + rand.Text()
	}
	c := &configuration.Configuration{
		Version: configuration.CurrentVersion,
		// No cache of blob descriptors: it would go on to name blobs that a
		// collection or another engine on the same data has removed.
		Storage: configuration.Storage{
			storageDriver: {"rootdirectory": cfg.Root},
			"delete":      {"enabled": true},
			// Run purges: distribution would start that in a constructor.
			"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
		},
		Catalog: configuration.Catalog{MaxEntries: pageSize},
		Tags:    configuration.Tags{MaxTags: pageSize},
	}
	c.HTTP.Secret = secret
	return c
}

// newApp turns distribution's panic over a configuration into an error.
func newApp(ctx context.Context, c *configuration.Configuration) (app *handlers.App, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("distribution refuses its configuration: %v", p)
		}
	}()
	return handlers.NewApp(ctx, c), nil
}

// ServeHTTP answers one request of the registry's API.
func (e *Embedded) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.app.ServeHTTP(w, r) }

// Run removes abandoned uploads from time to time until ctx ends.
func (e *Embedded) Run(ctx context.Context) error {
	timer := time.NewTimer(purgeFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		e.purge(ctx)
		timer.Reset(purgeEvery)
	}
}

// purge removes uploads that began long ago. What it cannot remove is tried
// again the next time.
func (e *Embedded) purge(ctx context.Context) {
	if _, err := e.driver.Stat(ctx, repositories); errors.As(err, &driver.PathNotFoundError{}) {
		return // nothing was pushed yet
	}
	removed, errs := storage.PurgeUploads(ctx, e.driver, time.Now().Add(-purgeAge), true)
	if len(removed) > 0 {
		e.log.Info("abandoned uploads removed", "uploads", len(removed))
	}
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		e.log.Warn("abandoned uploads stay", "err", err)
	}
}
