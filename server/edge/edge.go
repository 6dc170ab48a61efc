// Package edge is the TLS front of the registry: it serves hot certificates,
// signs users in, sets limits, counts, and hands the request to one of the
// engine's endpoints.
//
// It keeps no record of its own: what it serves comes by Publish, who may sign
// in by Config.Hash at every request, who answers by Serve and Gate. Nothing in
// flight is cut by a new certificate, a changed user or another endpoint; a request
// ends by itself, with its client, or when a stop has waited Config.Drain for it.
// Nothing runs before Run, and nothing is left when Run has returned.
package edge

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config introduces the edge to the rest of the server. Domain, Hash and DummyHash
// are needed; the zero value of every other field works.
type Config struct {
	// Domain is the host name, without port, whose certificate is served to a
	// client that asks for no name or for an unknown one.
	Domain string
	// Hash returns a user's bcrypt hash as it is now; it is asked at every
	// request. Whatever it says counts from that request on.
	Hash func(user string) (hash []byte, ok bool)
	// DummyHash returns a bcrypt hash that no password has, of the highest cost
	// in use, so that unknown users are refused as slowly as known ones.
	DummyHash func() []byte
	// Log takes what an operator must know; handshakes that fail are at debug
	// level, since every scanner makes some. Default: discard.
	Log *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
	// Drain is how long a stop waits for requests in flight before it cuts
	// them. Default 30 s: most blobs are through, and service managers wait
	// longer than that before they kill.
	Drain time.Duration

	// HoldLimit is how long a request waits for the gate and for an endpoint
	// before it gets 503. Default 30 s: clients wait longer than that, and an
	// engine restarts in less.
	HoldLimit time.Duration
	// HealthEvery is how often an endpoint behind a socket is asked whether it is
	// well; a failing one is asked ten times as often. Default 5 s.
	HealthEvery   time.Duration
	healthTimeout time.Duration // tests have less time than healthTimeout
	// Direct, if set, is asked first for what only reads, when the gate lets it pass:
	// it answers, or returns false with nothing done. Then an endpoint answers.
	Direct func(w http.ResponseWriter, r *http.Request) bool
	// Failed, if set, is called when an endpoint was taken out because it failed.
	// It must return at once.
	Failed func(id string, err error)

	// Free returns how many bytes are free where the engine keeps its data; it is
	// asked once a second at most. Default: nobody knows, and MinFree is not
	// looked at. FreeIn makes one.
	Free func() (uint64, error)
	// MinFree is below how many free bytes requests that add data get 507; reads
	// and deletions go on. Bodies in flight are cut below a quarter of it, so that
	// the server's records keep a reserve. 0 takes everything; DefaultMinFree
	// suits most.
	MinFree uint64
}

// DefaultDrain is what Config.Drain is when nothing is given.
const DefaultDrain = 30 * time.Second

// Edge is the TLS front. Its methods are safe for concurrent use.
type Edge struct {
	cfg       Config
	signIn    *signIn
	metrics   *metrics
	clients   clients
	gate      gate
	balance   balance
	space     space
	floods    floods
	newcomers newcomers
	// stopping is closed when Run ends, so that nobody waits for what comes no more.
	stopping chan struct{}

	publishing sync.Mutex                // one Publish at a time
	certs      atomic.Pointer[published] // nil before the first
}

// New returns an edge that serves nobody yet: see Publish, Serve and Run.
func New(cfg Config) *Edge {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Drain == 0 {
		cfg.Drain = DefaultDrain
	}
	if cfg.HoldLimit == 0 {
		cfg.HoldLimit = defaultHoldLimit
	}
	if cfg.HealthEvery == 0 {
		cfg.HealthEvery = defaultHealthEvery
	}
	if cfg.healthTimeout == 0 {
		cfg.healthTimeout = healthTimeout
	}
	e := &Edge{
		cfg:      cfg,
		signIn:   newSignIn(cfg.Hash, cfg.DummyHash),
		clients:  newClients(),
		gate:     newGate(),
		balance:  newBalance(),
		space:    space{free: cfg.Free, minimum: cfg.MinFree, log: cfg.Log, every: lookEvery},
		stopping: make(chan struct{}),
	}
	e.metrics = newMetrics(e)
	return e
}

// Run serves on lis until ctx ends, then takes no more connections, waits up to
// Config.Drain for the requests in flight, cuts the rest and returns nil; what
// waits behind the gate or for an endpoint is refused then. It closes lis, and can
// be called once. Handshakes fail until Publish has succeeded once.
func (e *Edge) Run(ctx context.Context, lis net.Listener) error {
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { e.watch(watching) })
	defer func() {
		unwatch()
		watch.Wait()
		e.rest()
	}()
	var connections sync.WaitGroup
	srv := e.server(&connections)
	var ended error
	served := make(chan struct{})
	go func() {
		defer close(served)
		ended = srv.Serve(tls.NewListener(listener{lis}, e.tlsConfig()))
	}()
	early := false
	select {
	case <-served:
		early = true
	case <-ctx.Done():
	}
	close(e.stopping)
	_ = lis.Close() // or whoever comes now would wait for a server that ends
	<-served
	e.shutdown(context.WithoutCancel(ctx), srv)
	connections.Wait()
	if early {
		return fmt.Errorf("serve the registry on %s: %w", lis.Addr(), ended)
	}
	return nil
}

// server returns the HTTP server. There is neither a read nor a write timeout:
// they count from a request's start and would cut a large blob on a slow line.
// What stands still is cut by stall instead, see there.
func (e *Edge) server(connections *sync.WaitGroup) *http.Server {
	var http1 http.Protocols
	http1.SetHTTP1(true) // HTTP/2 halves the rate of large blobs (FACTS)
	return &http.Server{
		Handler:           e,
		Protocols:         &http1,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){NextProtocol: closeNext},
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(e.cfg.Log.Handler(), slog.LevelDebug),
		ConnContext:       withConn,
		ConnState: func(conn net.Conn, state http.ConnState) {
			e.newcomers.saw(conn, state)
			switch state {
			case http.StateNew: // before Serve returns, so before Wait
				connections.Add(1)
			case http.StateClosed:
				e.ended(conn)
				connections.Done()
			case http.StateHijacked:
				connections.Done()
			}
		},
	}
}

type connKey struct{}

// withConn lets a connection's requests find it.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// connOf is the connection that a request came on; nil without one.
func connOf(r *http.Request) net.Conn {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	return conn
}

// shutdown lets connections that are open make their request and requests in flight end,
// and cuts those that take longer.
func (e *Edge) shutdown(ctx context.Context, srv *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Drain)
	defer cancel()
	srv.SetKeepAlivesEnabled(false) // each answer is the last one of its connection
	e.newcomers.wait(ctx)
	if err := srv.Shutdown(ctx); err == nil {
		return
	}
	e.cfg.Log.Warn("requests were cut by the stop", "after", e.cfg.Drain, "requests", e.metrics.inFlight.Load())
	_ = srv.Close() // closing connections that their clients may have closed
}
