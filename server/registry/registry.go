// Package registry is the engine: what answers the registry's API behind the
// edge, over the data directory.
//
// The embedded engine is distribution as a library in this process; the layout
// of its data is the official image's, so that either can take over from the
// other. Engines see requests that are signed in already and never see a
// password. They keep no record of their own, open no port, and never publish
// what distribution offers beside the API (debug pages, its own metrics).
package registry

import (
	"context"
	"net/http"
)

// Engine answers the registry's API for the edge. It must be told of a client's
// scheme and host by X-Forwarded-Proto and X-Forwarded-Host, which end up in the
// Location of uploads.
type Engine interface {
	// ServeHTTP answers one request under /v2/. It may be called before Run and
	// while Run ends: the edge drains first.
	http.Handler
	// Run does the engine's own work until ctx ends, and returns nil then. All
	// goroutines of the engine end with it.
	Run(ctx context.Context) error
}
