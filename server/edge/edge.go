// Package edge is the TLS front of the registry: it serves hot certificates,
// signs users in, sets limits, counts, and hands the request to the engine.
//
// It keeps no record of its own: what it serves comes by Publish, who may sign
// in by Config.Hash at every request. Nothing in flight is cut by a new
// certificate or a changed user; a request ends by itself, with its client, or
// when a stop has waited Config.Drain for it. Nothing runs before Run, and
// nothing is left when Run has returned.
package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config introduces the edge to the rest of the server. Engine, Domain, Hash and
// DummyHash are needed; the zero value of every other field works.
type Config struct {
	// Engine answers what is signed in.
	Engine http.Handler
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
}

const defaultDrain = 30 * time.Second

// Edge is the TLS front. Its methods are safe for concurrent use.
type Edge struct {
	cfg     Config
	signIn  *signIn
	metrics *metrics
	clients clients

	publishing sync.Mutex                // one Publish at a time
	certs      atomic.Pointer[published] // nil before the first
}

// New returns an edge that serves nobody yet: see Publish and Run.
func New(cfg Config) *Edge {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Drain == 0 {
		cfg.Drain = defaultDrain
	}
	return &Edge{
		cfg:     cfg,
		signIn:  newSignIn(cfg.Hash, cfg.DummyHash),
		metrics: newMetrics(cfg.Registerer, cfg.Log),
		clients: newClients(),
	}
}

// Run serves on lis until ctx ends, then takes no more connections, waits up to
// Config.Drain for the requests in flight, cuts the rest and returns nil. It
// closes lis. Handshakes fail until Publish has succeeded once.
func (e *Edge) Run(ctx context.Context, lis net.Listener) error {
	var connections sync.WaitGroup
	srv := e.server(&connections)
	var ended error
	served := make(chan struct{})
	go func() {
		defer close(served)
		ended = srv.Serve(tls.NewListener(listener{lis}, e.tlsConfig()))
	}()
	select {
	case <-served:
	case <-ctx.Done():
	}
	e.drain(context.WithoutCancel(ctx), srv)
	<-served
	connections.Wait()
	if !errors.Is(ended, http.ErrServerClosed) {
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
		ConnState: func(conn net.Conn, state http.ConnState) {
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

// drain lets requests in flight end, and cuts those that take longer.
func (e *Edge) drain(ctx context.Context, srv *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Drain)
	defer cancel()
	if err := srv.Shutdown(ctx); err == nil {
		return
	}
	e.cfg.Log.Warn("requests were cut by the stop", "after", e.cfg.Drain, "requests", e.metrics.inFlight.Load())
	_ = srv.Close() // closing connections that their clients may have closed
}
