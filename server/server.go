// Package server is the server node: it runs the registry behind its edge, owns
// the CAs, knows the fleet and rotates the registry CA on evidence.
//
// Run is the composition root: it opens each part over one data directory,
// introduces the parts to each other and owns all their goroutines. The parts
// do not know each other. api_*.go is what agents and operators call; each call
// is one step into a part. Creating is another verb: see Init.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/gossip"
	"github.com/trustcast/trustcast/internal/memory"
	"github.com/trustcast/trustcast/server/archive"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/edge"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/server/registry/direct"
	"github.com/trustcast/trustcast/server/users"
)

// node is a running server: its parts, introduced to each other.
type node struct {
	cfg     Config
	layout  layout
	site    site
	names   []certs.Name
	log     *slog.Logger
	started time.Time
	metrics *prometheus.Registry

	store     *records.Store
	identity  *identity.Identity
	fleet     *fleet.Fleet
	authority *authority.Authority
	users     *users.Users
	edge      *edge.Edge
	registry  *registry.Registry
	embedded  *registry.Embedded // nil: another engine
	direct    *direct.Reads      // nil: the engine answers everything
	headers   http.Header        // of all answers of replicas
	redirects bool               // replicas may send reads to their storage
	storage   string             // what keeps the images, when that is not the data directory
	gossip    *gossip.Member     // nil when off

	listen listeners
	wanted wantedCache
	// reported beats with each report and each change of presence.
	reported pulse
	// changed is nudged when the record changed and the edge serves it.
	changed chan struct{}
	// ringMu is held from a change of the gossip ring's record until everybody is
	// told; ringUsed is the version that they were told last.
	ringMu   sync.Mutex
	ringUsed uint64
	// ringAwaits is one host that the roll's step waits for, "" for none.
	ringAwaits string
	// stopping is closed when streams shall end.
	stopping chan struct{}
	// asked takes who wants to know whether all parts answer; closed by attend when they do.
	asked chan chan struct{}
}

// StopLimit is about how long a stop may take: requests in flight end first. Nobody is
// answered on the admin socket meanwhile.
const StopLimit = edge.DefaultDrain

// Run runs the server on an initialized data directory until ctx ends, then
// drains and returns nil. Every error is one sentence with the next step.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	finished, err := archive.Settle(cfg.DataDir)
	if err != nil {
		return err
	}
	if finished {
		cfg.Log.Warn("a restore was cut short when all was checked: it is finished now")
	}
	if !Initialized(cfg.DataDir) {
		return fmt.Errorf("%s holds no registry: make one with `trustcast init --domain HOST[:PORT]`, or start with `trustcast server --init --domain HOST[:PORT] --user NAME`", cfg.DataDir)
	}
	if err := cfg.Check(); err != nil {
		return err
	}
	l := layout{cfg.DataDir}
	release, err := records.Lock(l.state())
	if err != nil {
		return err
	}
	defer release()
	n, err := open(ctx, cfg, l)
	if err != nil {
		return err
	}
	defer n.close()
	return n.run(ctx)
}

// open reads the records and makes the parts; nothing runs yet.
func open(ctx context.Context, cfg Config, l layout) (n *node, err error) {
	n = &node{cfg: cfg, layout: l, log: cfg.Log, started: time.Now(), metrics: prometheus.NewRegistry(), changed: make(chan struct{}, 1), stopping: make(chan struct{}), asked: make(chan chan struct{})}
	if n.store, err = records.Open(l.records()); err != nil {
		return nil, err
	}
	revision, err := n.store.Get(siteRecord, &n.site)
	if err != nil {
		return nil, err
	}
	n.cfg = cfg.keep(n.site).withLives()
	if err := n.takeSubject(revision); err != nil {
		return nil, err
	}
	if n.names, err = n.site.names(); err != nil {
		return nil, err
	}
	switch n.users, err = users.Open(n.store, l.htpasswd()); {
	case errors.Is(err, users.ErrCopy): // nobody signs in by it
		n.log.Warn("the copy of the users in auth/htpasswd is not written", "err", err)
	case err != nil:
		return nil, err
	}
	n.sayPassedOver()
	keys, err := records.OpenKeys(l.keys())
	if err != nil {
		return nil, err
	}
	if n.identity, err = identity.Open(n.identityConfig(keys)); err != nil {
		return nil, err
	}
	n.edge = edge.New(edge.Config{
		Domain: n.names[0].Host,
		Hash:   n.users.Hash, DummyHash: n.users.DummyHash,
		HoldLimit: cfg.HoldLimit,
		Free:      edge.FreeIn(l.dir), MinFree: cfg.minFree(),
		Failed: func(string, error) { n.registry.Nudge() },
		Direct: func(w http.ResponseWriter, r *http.Request) bool { return n.direct.Answer(w, r) },
		Log:    n.log, Registerer: n.metrics,
	})
	if err := n.openRegistry(ctx); err != nil {
		return nil, err
	}
	if n.fleet, err = fleet.Open(fleet.Config{Records: n.store, GoneAfter: cfg.GoneAfter, Alive: n.gossipSees, Changed: n.heardOf, Dropped: n.nudge}); err != nil {
		return nil, err
	}
	for _, h := range n.identity.Removed() { // a crash may have come between the two
		if err := n.fleet.Drop(h.ID); err != nil {
			return nil, err
		}
	}
	if err := n.openAuthority(keys); err != nil {
		return nil, err
	}
	if err := n.registerStrangers(); err != nil {
		return nil, err
	}
	if ring := n.identity.Ring(); ring.Step() == identity.RingIdle {
		n.ringUsed = ring.Version // else a crash may have come before everybody was told
	}
	n.register()
	return n, sweep(keys, n.authority.Keys(), n.identity.Keys())
}

func (n *node) openAuthority(keys *records.Keys) error {
	subject, err := parseSubject(n.site.Subject)
	if err != nil {
		return err
	}
	window, err := authority.ParseWindow(n.cfg.RotateWindow)
	if err != nil {
		return err // Check has said more
	}
	n.authority, err = authority.Open(authority.Config{
		Records: n.store, Keys: keys, Names: n.names, Subject: subject,
		CALife: n.cfg.CALife, LeafLife: n.cfg.LeafLife,
		Tick: n.cfg.Tick, Deadline: n.cfg.Deadline, Window: window,
		ClockOff: n.paused,
		Hosts:    n.reports, Host: n.reportOf, Cover: n.fleet.Cover, Uncover: n.fleet.Uncover,
		Publish: n.edge.Publish,
		Announce: func() {
			select {
			case n.changed <- struct{}{}:
			default:
			}
		},
		Log: n.log,
	})
	return err
}

// sweep destroys keys that no record names: a crash left them between writing a
// key and the record that names it, or between forgetting and destroying.
func sweep(keys *records.Keys, used ...[]records.KeyID) error {
	named := map[records.KeyID]bool{}
	for _, ids := range used {
		for _, id := range ids {
			named[id] = true
		}
	}
	return keys.Sweep(named)
}

// run opens the ports, then runs every part until ctx ends or one fails.
func (n *node) run(ctx context.Context) error {
	if err := n.openPorts(); err != nil {
		return err
	}
	if err := n.authority.Publish(); err != nil {
		// An operator must be able to look and to act: run, and try again.
		n.log.Error("the registry serves nobody yet", "err", err)
	}
	n.startGossip()
	agents, admin := n.agentServer(), n.adminServer()
	g, ctx := errgroup.WithContext(ctx)
	drained := make(chan struct{})
	g.Go(func() error {
		defer close(drained)
		return n.edge.Run(ctx, n.listen.registry)
	})
	g.Go(func() error { return n.attend(drained) })
	g.Go(func() error { return n.registry.Run(ctx) })
	g.Go(func() error { return n.authority.Run(ctx) })
	g.Go(func() error { return n.identity.Run(ctx) })
	g.Go(func() error { return n.announce(ctx) })
	g.Go(func() error { return n.keepRing(ctx) })
	g.Go(func() error { return n.warn(ctx) })
	g.Go(func() error { return serveGRPC(agents, n.listen.grpc) })
	g.Go(func() error { return serveGRPC(admin, n.listen.admin) })
	if n.listen.http != nil {
		g.Go(func() error { return n.serveHTTP(drained) })
	}
	if n.gossip != nil {
		g.Go(func() error { return n.gossip.Run(ctx) })
	}
	if n.cfg.GiveMemoryBack {
		g.Go(func() error { return memory.GiveBack(ctx) })
	}
	n.logListening()
	if n.cfg.Supervisor.Ready != nil {
		n.cfg.Supervisor.Ready(n.statusLine())
	}
	g.Go(func() error {
		<-ctx.Done()
		n.log.Info("stopping: requests in flight end first", "why", context.Cause(ctx))
		close(n.stopping) // streams end, then the servers can stop gracefully
		if n.cfg.Supervisor.Stopping != nil {
			n.cfg.Supervisor.Stopping()
		}
		var stopped sync.WaitGroup
		for _, s := range []*grpc.Server{agents, admin} {
			stopped.Go(func() { stopGRPC(s) })
		}
		stopped.Wait()
		return nil
	})
	return g.Wait()
}

// serveHTTP answers health and metrics on the loopback port until the edge has drained: a
// server that stops says so.
func (n *node) serveHTTP(drained <-chan struct{}) error {
	srv := n.healthServer()
	var closing sync.WaitGroup
	ended := make(chan struct{})
	closing.Go(func() {
		select {
		case <-drained:
		case <-ended:
		}
		_ = srv.Close()
	})
	err := srv.Serve(netutil.LimitListener(n.listen.http, httpConns))
	close(ended)
	closing.Wait()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("health port: %w", err)
	}
	return nil
}
