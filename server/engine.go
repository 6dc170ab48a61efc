package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trustcast/trustcast/internal/durable"
	"github.com/trustcast/trustcast/server/edge"
	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/server/registry/direct"
	"github.com/trustcast/trustcast/server/registry/parameters"
)

// The engines by name.
const (
	engineEmbedded = "embedded"
	engineDocker   = "docker"
)

// openRegistry makes the engine that was asked for, and the registry over it.
func (n *node) openRegistry(ctx context.Context) error {
	n.cfg.Registry.Engine, n.cfg.Registry.Replicas, n.cfg.Registry.Network = n.cfg.EngineName, n.cfg.Replicas, n.cfg.Network != ""
	cfg := registry.Config{Records: n.store, Front: n.front(), Replicas: n.cfg.Replicas, Log: n.log}
	secret, err := registry.Secret(n.store)
	if err != nil {
		return err
	}
	switch {
	case n.cfg.Engine != nil:
		cfg.Engine = n.cfg.Engine
	default:
		err = n.openEngine(ctx, secret, &cfg)
	}
	if err != nil {
		return err
	}
	if n.registry, err = registry.Open(cfg); err != nil {
		return err
	}
	if image := n.registry.Upgraded(); image != "" {
		n.log.Info("the image of the last upgrade counts, until another --registry-image is given", "image", image, "registry-image", cfg.Image)
	}
	return nil
}

// openEngine makes one of the operator's parameters.
func (n *node) openEngine(ctx context.Context, secret string, cfg *registry.Config) error {
	given, err := n.registryParameters()
	if err != nil {
		return err
	}
	n.storage, n.direct = elsewhere(given), direct.New(n.layout.dir, given)
	n.headers, n.redirects = given.Answers()
	cfg.Driver, cfg.Purge, cfg.Cache = registry.Driver(given, n.layout.dir), given.Purge(), given.BlobCache()
	if n.cfg.EngineName == engineDocker {
		cfg.Image = cmp.Or(n.cfg.Image, registry.DefaultImage)
		cfg.Engine, err = registry.NewDocker(ctx, registry.DockerConfig{
			Domain: n.names[0].String(), Fleet: n.identity.FleetID(),
			Volume: n.cfg.Volume, Root: n.layout.dir, Image: n.cfg.Image, Network: n.cfg.Network,
			Parameters: given, HTTPSecret: secret, Log: n.log,
		})
		return err
	}
	n.embedded, err = registry.NewEmbedded(ctx, registry.EmbeddedConfig{Root: n.layout.dir, HTTPSecret: secret, Parameters: given, Log: n.log})
	cfg.Engine = n.embedded
	return err
}

// elsewhere is the storage of images that are not in the data directory.
func elsewhere(s *parameters.Set) string {
	if driver := s.StorageDriver(); driver != "filesystem" {
		return driver
	}
	return ""
}

// checkVolume: the docker engine needs one, and no other engine has one.
func checkVolume(engine, volume string) error {
	switch {
	case engine == engineDocker && volume == "":
		return errors.New("the docker engine needs a volume: add --volume NAME; containers come and go, and all data stays there")
	case engine != engineDocker && volume != "":
		return errors.New("--volume is for the docker engine, and the embedded engine keeps its data in --data-dir: leave it out, or add --engine docker")
	}
	return nil
}

// placeInVolume makes the data directory a link to the volume's, which is made if
// missing. No volume: nothing.
func placeInVolume(ctx context.Context, dataDir, volume, domain string) error {
	if volume == "" {
		return nil
	}
	dir, err := registry.DockerVolume(ctx, "", volume, domain)
	if err != nil {
		return err
	}
	return linkTo(dataDir, dir, "the volume "+volume)
}

// linkTo makes the data directory a link to dir, which is what says, unless it is
// that directory already.
func linkTo(dataDir, dir, what string) error {
	is, err := canLink(dataDir, dir, what)
	if is || err != nil {
		return err
	}
	if err := os.Remove(dataDir); err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty directory
		return fmt.Errorf("make %s a link to %s: %w", dataDir, what, err)
	}
	if err := durable.MkdirAll(filepath.Dir(dataDir), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(dir, dataDir); err != nil {
		return fmt.Errorf("make %s a link to %s: %w", dataDir, what, err)
	}
	return nil
}

// canLink says whether the data directory is dir already, or why it cannot become a
// link to it.
func canLink(dataDir, dir, what string) (is bool, err error) {
	here, err := os.Stat(dataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("the data directory: %w", err)
	}
	there, err := os.Stat(dir)
	if err != nil {
		return false, fmt.Errorf("%s: %w", what, err)
	}
	if os.SameFile(here, there) {
		return true, nil
	}
	if entries, err := os.ReadDir(dataDir); err != nil || len(entries) > 0 {
		return false, fmt.Errorf("%s is there already and is not %s, whose data is in %s: give another --data-dir, which becomes a link to it", dataDir, what, dir)
	}
	return false, nil
}

// front introduces the edge to the registry.
func (n *node) front() registry.Front {
	gate := func(g edge.Gate) func() { return func() { n.edge.Gate(g) } }
	return registry.Front{
		Serve: func(replicas []registry.Endpoint) {
			endpoints := make([]edge.Endpoint, len(replicas))
			for i, r := range replicas {
				endpoints[i] = edge.Endpoint{ID: r.ID, Handler: r.Handler, Socket: r.Socket, UID: r.UID, Header: n.headers, Redirects: n.redirects}
			}
			n.edge.Serve(endpoints)
		},
		Drain: n.edge.Drain, Quiet: n.edge.Quiet, Empty: n.edge.Empty,
		Open: gate(edge.Open), HoldWrites: gate(edge.ReadOnly), Hold: gate(edge.Held), Refuse: gate(edge.Closed),
	}
}
