package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage/driver"
)

// pageSize of catalogs and tag lists, distribution's own default.
const pageSize = 1000

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

// Embedded is distribution in this process: an engine with one replica at a time,
// or two while one takes over from the other.
type Embedded struct {
	cfg    EmbeddedConfig
	driver driver.StorageDriver
	said   *recentLines

	mu     sync.Mutex
	ready  *handlers.App            // made by NewEmbedded for the first Open
	opened map[string]*handlers.App // by ID
	last   int                      // number of the newest
}

var _ Engine = (*Embedded)(nil)

// NewEmbedded returns an engine over cfg.Root and finds every mistake in cfg. It
// takes over the process's only logrus logger, which distribution writes to. For
// each replica one goroutine of distribution's, which waits for notifications that
// nobody sends, stays until the process ends.
func NewEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.HTTPSecret == "" {
		cfg.HTTPSecret = rand.Text() + rand.Text()
	}
	info, err := os.Stat(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("open the registry's data: %w: give the data directory with --data-dir", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open the registry's data: %s is no directory: give the data directory with --data-dir", cfg.Root)
	}
	if err := disown(cfg.Root); err != nil {
		return nil, err
	}
	e := &Embedded{cfg: cfg, said: &recentLines{}, opened: map[string]*handlers.App{}}
	steerLogs(slog.New(slog.NewMultiHandler(cfg.Log.Handler(), slog.NewTextHandler(e.said, nil))))
	if e.driver, err = FilesIn(cfg.Root)(ctx); err != nil {
		return nil, err
	}
	e.ready, err = e.newApp(ctx)
	return e, err
}

// Name returns "embedded".
func (e *Embedded) Name() string { return "embedded" }

// Found returns none: nothing of this process outlives it.
func (e *Embedded) Found(context.Context, string) ([]Endpoint, error) { return nil, nil }

// Open returns another distribution over the same data. There is no image to
// choose: the registry is a part of this program.
func (e *Embedded) Open(ctx context.Context, image string) (Endpoint, error) {
	if image != "" {
		return Endpoint{}, errors.New("the embedded engine runs no image: it is upgraded with trustcast itself; with --engine docker the image can be chosen")
	}
	e.mu.Lock()
	app := e.ready
	e.ready = nil
	e.mu.Unlock()
	if app == nil {
		var err error
		if app, err = e.newApp(ctx); err != nil {
			return Endpoint{}, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	id := fmt.Sprintf("embedded-%d", e.last)
	e.opened[id] = app
	return Endpoint{ID: id, Handler: app, Started: time.Now()}, nil
}

// Close forgets a replica.
func (e *Embedded) Close(_ context.Context, id string) error {
	e.mu.Lock()
	app := e.opened[id]
	delete(e.opened, id)
	e.mu.Unlock()
	if app == nil {
		return nil
	}
	return app.Shutdown()
}

// Alive returns those that are open.
func (e *Embedded) Alive(_ context.Context, ids []string) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return e.opened[id] == nil }), nil
}

// Logs writes distribution's latest warnings and errors, of all replicas together.
func (e *Embedded) Logs(ctx context.Context, _ string, tail int, follow bool, w io.Writer) error {
	return e.said.copy(ctx, tail, follow, w)
}

// configuration is distribution's, made here and not parsed, so that no
// REGISTRY_ variable of the environment gets in unseen.
func (cfg EmbeddedConfig) configuration() *configuration.Configuration {
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
	c.HTTP.Secret = cfg.HTTPSecret
	return c
}

// newApp makes a distribution that requests may outlive ctx in, until they are
// drained.
func (e *Embedded) newApp(ctx context.Context) (*handlers.App, error) {
	app, err := newApp(context.WithoutCancel(ctx), e.cfg.configuration())
	if err != nil {
		return nil, fmt.Errorf("start the embedded registry on %s: %w", e.cfg.Root, err)
	}
	return app, nil
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

// Run waits: a registry in this process needs no looking after.
func (e *Embedded) Run(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// Driver returns the storage that holds the images.
func (e *Embedded) Driver(context.Context) (driver.StorageDriver, error) { return e.driver, nil }
