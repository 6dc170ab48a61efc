// Package registry runs what answers the registry's API behind the edge: its
// engine, the engine's replicas, and the life that the operator chose for them.
//
// An engine is the embedded distribution or containers of the official image on
// Docker; both keep the same data in the same layout, so that either can take
// over from the other. Engines see requests that are signed in already and never
// see a password. They open no port, and never publish what distribution offers
// beside the API (debug pages, its own metrics).
package registry

import (
	"context"
	"io"
	"net/http"
	"time"
)

// Endpoint is one replica: where the registry's API is answered. It must be told
// of a client's scheme and host by X-Forwarded-Proto and X-Forwarded-Host, which
// end up in the Location of uploads.
type Endpoint struct {
	// ID is unique among the replicas that one engine ever had, and is short.
	ID string
	// Handler answers in this process. Nil: Socket does.
	Handler http.Handler
	// Socket is the path of a Unix socket that speaks HTTP/1.1.
	Socket string
	// UID is the user of the process that answers there; 0: any.
	UID int
	// Image that the replica runs; empty for the embedded engine.
	Image string
	// Started is when it began.
	Started time.Time
	// Outdated: an earlier life started it, with another image than Open would take now.
	Outdated bool
}

// Engine runs replicas. All methods may be called at the same time.
type Engine interface {
	// Name is "embedded" or "docker".
	Name() string
	// Found returns the replicas that an earlier life of the server left, answer,
	// and are what Open would start now, but for the image: those of another one are
	// outdated. It removes its others.
	Found(ctx context.Context, image string) ([]Endpoint, error)
	// Open starts one more replica of an image and returns when it answers. An
	// error says what the operator can do; nothing of the replica is left then.
	// The embedded engine takes no image.
	Open(ctx context.Context, image string) (Endpoint, error)
	// Close ends a replica that nobody asks any more. One that is gone is no error.
	Close(ctx context.Context, id string) error
	// Run does the engine's own work until ctx ends, and returns nil then. It calls
	// changed when a replica may have ended by itself or can be started again.
	// Replicas of Docker outlive it.
	Run(ctx context.Context, changed func()) error
	// Alive returns which of these replicas still run.
	Alive(ctx context.Context, ids []string) ([]string, error)
	// Logs writes what a replica said, the last tail lines (0: all that are kept),
	// and with follow what it says until ctx ends.
	Logs(ctx context.Context, id string, tail int, follow bool, w io.Writer) error
}
