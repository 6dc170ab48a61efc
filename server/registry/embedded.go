package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/health"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/distribution/v3/registry/handlers"

	"github.com/trustcast/trustcast/server/registry/parameters"
)

// EmbeddedConfig is for NewEmbedded. Root is needed.
type EmbeddedConfig struct {
	// Root is the data directory; blobs land in Root/docker/registry/v2.
	Root string
	// HTTPSecret signs the state of uploads that clients carry; engines on the
	// same data need the same one. Default: random, so that an upload begun
	// before a restart starts over.
	HTTPSecret string
	// Parameters are the operator's. Default: none.
	Parameters *parameters.Set
	// Log takes distribution's errors and warnings, and what was purged.
	// Default: discard.
	Log *slog.Logger
}

// Embedded is distribution in this process: an engine with one replica at a time,
// or two while one takes over from the other.
type Embedded struct {
	cfg  EmbeddedConfig
	said *recentLines

	mu     sync.Mutex
	ready  *embeddedApp            // made by NewEmbedded for the first Open; a mirror has none
	opened map[string]*embeddedApp // by ID
	last   int                     // number of the newest
}

var _ Engine = (*Embedded)(nil)

// NewEmbedded returns an engine over cfg.Root and finds every mistake in cfg, but for
// those about the other registry of a mirror, which Open asks. Images that replicas of
// Docker wrote become this process's first, see disown. It takes over the
// process's only logrus logger, which distribution writes to. For each replica one
// goroutine of distribution's, and one for each endpoint of notifications, stays until
// the process ends.
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
	if err := disown(ctx, cfg.Root); err != nil {
		return nil, err
	}
	if cfg.Parameters == nil {
		if cfg.Parameters, err = parameters.Parse(nil, nil, parameters.Options{}); err != nil {
			return nil, err
		}
	}
	e := &Embedded{cfg: cfg, said: &recentLines{}, opened: map[string]*embeddedApp{}}
	c, err := cfg.configuration()
	if err != nil {
		return nil, err
	}
	said := slog.NewTextHandler(e.said, &slog.HandlerOptions{Level: slog.LevelDebug})
	steerLogs(slog.New(slog.NewMultiHandler(cfg.Log.Handler(), said)), c.Log)
	if c.Proxy.RemoteURL != "" {
		return e, nil // the other registry may be away: Open is tried until it is there
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

// End closes all that are open, and waits for nobody: no request may be in flight. A
// mirror would write down on its own what it keeps and for how long, also into a
// directory that meanwhile is another's.
func (e *Embedded) End() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	open := slices.Collect(maps.Values(e.opened))
	if e.ready != nil {
		open = append(open, e.ready)
	}
	e.ready = nil
	clear(e.opened)
	var errs []error
	for _, app := range open {
		errs = append(errs, app.Shutdown())
	}
	return errors.Join(errs...)
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

// configuration is distribution's.
func (cfg EmbeddedConfig) configuration() (*configuration.Configuration, error) {
	return cfg.Parameters.Configuration(cfg.Root, cfg.HTTPSecret)
}

// newApp makes a distribution for this engine.
func (e *Embedded) newApp(ctx context.Context) (*embeddedApp, error) {
	c, err := e.cfg.configuration()
	if err != nil {
		return nil, err
	}
	begin := newApp
	if c.Proxy.RemoteURL != "" {
		begin = newMirror
	}
	app, err := begin(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("start the embedded registry on %s: %w", e.cfg.Root, err)
	}
	return app, nil
}

// embeddedApp is one replica: distribution, and its health checks if there are any.
type embeddedApp struct {
	*handlers.App
	checks *health.Registry
}

// newApp makes a distribution that requests may outlive ctx in, until they are
// drained. It turns distribution's panic over a configuration into an error.
func newApp(ctx context.Context, c *configuration.Configuration) (app *embeddedApp, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("distribution refuses its configuration: %v", p)
		}
	}()
	a := &embeddedApp{App: handlers.NewApp(context.WithoutCancel(ctx), c), checks: health.NewRegistry()}
	a.RegisterHealthChecks(a.checks)
	return a, nil
}

// ServeHTTP answers with 503 while a health check fails, as the registry's own
// program does.
func (a *embeddedApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if failed := a.checks.CheckStatus(r.Context()); len(failed) > 0 {
		names := slices.Sorted(maps.Keys(failed))
		_ = errcode.ServeJSON(w, errcode.ErrorCodeUnavailable.WithDetail("health checks failed: "+strings.Join(names, ", "))) // the client went away
		return
	}
	a.App.ServeHTTP(w, r)
}

// Run waits: a registry in this process needs no looking after.
func (e *Embedded) Run(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}
