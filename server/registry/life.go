package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"

	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry/parameters"
)

// ErrNotNow says that the registry cannot do this in its state.
var ErrNotNow = errors.New("not now")

// ErrInvalid says that what was asked for makes no sense.
var ErrInvalid = errors.New("invalid")

// State is what the operator chose for the registry. It survives every restart.
type State string

// The states.
const (
	Running State = "running"
	Paused  State = "paused"  // replicas run, requests wait
	Stopped State = "stopped" // no replica runs, requests are refused
)

// Front is what the edge does for the registry.
type Front struct {
	// Serve says who answers from now on; what is in flight elsewhere goes on.
	Serve func([]Endpoint)
	// Drain keeps new requests from a replica, and returns when none is in flight.
	Drain func(ctx context.Context, id string) error
	// Quiet returns when no write is in flight.
	Quiet func(ctx context.Context) error
	// Empty returns when no request is in flight, whoever answers it.
	Empty func(ctx context.Context) error
	// Open lets all requests pass; HoldWrites lets only reads pass, and Hold none:
	// the others wait up to a limit. Refuse answers all of them at once.
	Open, HoldWrites, Hold, Refuse func()
}

// Config is for Open. Records, Engine and Front are needed.
type Config struct {
	Records *records.Store
	Engine  Engine
	Front   Front
	// Driver opens the storage that holds the images. Nil: there is none that this
	// process could open, and nothing is collected or purged.
	Driver func(ctx context.Context) (driver.StorageDriver, error)
	// Cache is where replicas remember which blobs exist, see parameters.Set.BlobCache.
	Cache string
	// Purge is how abandoned uploads are removed. Default: they are not.
	Purge parameters.Purge
	// Image is the configured one; empty for an engine without.
	Image string
	// Replicas is how many there shall be. Default 1.
	Replicas int
	// Log takes what changes. Default: discard.
	Log *slog.Logger
}

// Registry brings the engine to what the operator chose and keeps it there. Its
// methods may be called at the same time; what replaces replicas goes one by one.
type Registry struct {
	cfg    Config
	nudged chan struct{} // one slot: look again
	turn   chan struct{} // held by whoever replaces replicas
	images chan struct{} // held by whoever needs the images to stay, or removes some
	begun  chan struct{} // closed by Run, with running set
	// running is Run's context: what replaces replicas ends with it.
	running context.Context
	leaving chan struct{} // a slot for each replica that ends its last requests
	// partings are those; none is added when it is over.
	partings sync.WaitGroup

	mu         sync.Mutex
	rec        record
	rev        uint64
	stay       context.Context    // as long as the state is the same
	leave      context.CancelFunc // ends it
	replicas   []Endpoint         // those that serve
	found      bool               // what an earlier life left was looked for
	collecting bool               // writes are held
	over       bool               // Run is ending
	busy       string             // what is under way, in words
	problem    string             // why the engine is not as it should be, in words
	told       time.Time          // when problem was logged
}

// Open reads what the operator chose. Nothing runs before Run; the gate of the
// front is set.
func Open(cfg Config) (*Registry, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Replicas = max(cfg.Replicas, 1)
	r := &Registry{cfg: cfg, nudged: make(chan struct{}, 1), turn: make(chan struct{}, 1), images: make(chan struct{}, 1), begun: make(chan struct{}), leaving: make(chan struct{}, maxLeaving)}
	r.stay, r.leave = context.WithCancel(context.Background())
	var err error
	if r.rec, r.rev, err = read(cfg.Records); err != nil {
		return nil, err
	}
	r.setGate()
	return r, nil
}

// choose keeps a change of the record, unless that refuses, then sets the gate by it.
func (r *Registry) choose(change func(*record) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.rec
	if err := change(&rec); err != nil {
		return err
	}
	if rec != r.rec {
		rev, err := r.cfg.Records.Put(recordName, r.rev, rec)
		if err != nil {
			return fmt.Errorf("keep the registry's state: %w", err)
		}
		if rec.State != r.rec.State {
			r.leave()
			r.stay, r.leave = context.WithCancel(context.Background())
		}
		r.rec, r.rev = rec, rev
	}
	r.setGate()
	return nil
}

// whileStopped returns a context that ends when another state is chosen. The caller has
// the turn and has chosen Stopped.
func (r *Registry) whileStopped() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stay
}

// setGate is called with mu held, but by Open.
func (r *Registry) setGate() {
	switch {
	case r.rec.State == Stopped:
		r.cfg.Front.Refuse()
	case r.rec.State == Paused:
		r.cfg.Front.Hold()
	case r.collecting:
		r.cfg.Front.HoldWrites()
	default:
		r.cfg.Front.Open()
	}
}

func (r *Registry) state() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec.State
}

// image is what replicas run: what an upgrade went to, unless the configuration
// was changed since.
func (r *Registry) image() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cmp.Or(r.rec.upgraded(r.cfg.Image), r.cfg.Image)
}

// Upgraded is the image that an upgrade went to from the configured one; empty: the
// configured one counts.
func (r *Registry) Upgraded() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec.upgraded(r.cfg.Image)
}

// serving returns the replicas that serve.
func (r *Registry) serving() []Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.replicas)
}

// serve makes these the replicas that serve.
func (r *Registry) serve(replicas []Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replicas = slices.Clone(replicas)
	r.cfg.Front.Serve(replicas)
}

// Nudge makes Run look at the replicas soon.
func (r *Registry) Nudge() {
	select {
	case r.nudged <- struct{}{}:
	default:
	}
}

// View is the registry at one moment.
type View struct {
	Engine string
	State  State
	// Busy is what is under way, Problem what is wrong, in words or empty.
	Busy, Problem string
	Image         string
	Wanted        int
	Replicas      []Endpoint
}

// View returns what there is now.
func (r *Registry) View() View {
	image := r.image()
	r.mu.Lock()
	defer r.mu.Unlock()
	return View{
		Engine: r.cfg.Engine.Name(), State: r.rec.State, Busy: r.busy, Problem: r.problem,
		Image: image, Wanted: r.cfg.Replicas, Replicas: slices.Clone(r.replicas),
	}
}

// KeepImages keeps collections away until release is called: for whoever reads all
// images and must miss none.
func (r *Registry) KeepImages(ctx context.Context) (release func(), err error) {
	return hold(ctx, r.images)
}

// hold takes a turn.
func hold(ctx context.Context, turn chan struct{}) (release func(), err error) {
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// setBusy notes what is under way, in words; empty: nothing.
func (r *Registry) setBusy(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = what
}

// drainLimit is how long a replica that is to go may keep answering what it began:
// longer than the largest image takes on a slow line. The edge ends what stands
// still much earlier.
const drainLimit = time.Hour
