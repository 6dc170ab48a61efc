package server

import (
	"context"
	"fmt"

	"github.com/trustcast/trustcast/server/edge"
	"github.com/trustcast/trustcast/server/registry"
)

// The engines by name.
const (
	engineEmbedded = "embedded"
	engineDocker   = "docker"
)

// openRegistry makes the engine that was asked for, and the registry over it.
func (n *node) openRegistry(ctx context.Context) error {
	cfg := registry.Config{
		Records: n.store, Front: n.front(), Replicas: n.cfg.Replicas, Log: n.log,
	}
	secret, err := registry.Secret(n.store)
	if err != nil {
		return err
	}
	switch {
	case n.cfg.Engine != nil:
		cfg.Engine = n.cfg.Engine
	default:
		err = n.openEmbedded(ctx, secret, &cfg)
	}
	if err != nil {
		return err
	}
	n.registry, err = registry.Open(cfg)
	return err
}

func (n *node) openEmbedded(ctx context.Context, secret string, cfg *registry.Config) error {
	if n.cfg.Replicas > 1 {
		return fmt.Errorf("--replicas %d: the embedded engine is one registry in this process; use --engine docker for several", n.cfg.Replicas)
	}
	e, err := registry.NewEmbedded(ctx, registry.EmbeddedConfig{Root: n.layout.dir, HTTPSecret: secret, Log: n.log})
	if err != nil {
		return err
	}
	cfg.Engine, cfg.Driver = e, e.Driver
	return nil
}

// front introduces the edge to the registry.
func (n *node) front() registry.Front {
	gate := func(g edge.Gate) func() { return func() { n.edge.Gate(g) } }
	return registry.Front{
		Serve: func(replicas []registry.Endpoint) {
			endpoints := make([]edge.Endpoint, len(replicas))
			for i, r := range replicas {
				endpoints[i] = edge.Endpoint{ID: r.ID, Handler: r.Handler, Socket: r.Socket}
			}
			n.edge.Serve(endpoints)
		},
		Drain: n.edge.Drain, Quiet: n.edge.Quiet,
		Open: gate(edge.Open), HoldWrites: gate(edge.ReadOnly), Hold: gate(edge.Held), Refuse: gate(edge.Closed),
	}
}
