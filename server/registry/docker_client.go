package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
)

const (
	// oldestAPI is the first with what replicas are locked down by, of Docker 1.13.
	oldestAPI = "1.25"
	// pingWithin is far above what an engine takes that is not busy with its own start.
	pingWithin = 10 * time.Second
)

// connect returns a client of an engine that answers and is young enough.
func connect(ctx context.Context, host string) (*dockerAPI, error) {
	api, err := newClient(host)
	if err != nil {
		return nil, err
	}
	if err := ping(ctx, api, pingWithin); err != nil {
		_ = api.Close()
		return nil, err
	}
	return api, nil
}

// DockerAnswers says why the engine at host ("" for that of the environment) cannot run
// replicas; nil when it answers.
func DockerAnswers(ctx context.Context, host string) error {
	api, err := connect(ctx, host)
	if err != nil {
		return err
	}
	return api.Close()
}

// newClient asks the engine nothing yet.
func newClient(host string) (*dockerAPI, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("the Docker engine's address: %w: correct DOCKER_HOST", err)
	}
	return api, nil
}

// ping finds out whether the engine answers, and is young enough.
func ping(ctx context.Context, api *dockerAPI, within time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	pong, err := api.Ping(bounded)
	switch {
	case err != nil && bounded.Err() != nil && ctx.Err() == nil:
		return fmt.Errorf("%w within %v: see what it waits for", errSilent, within)
	case err != nil:
		return explain(err, "reach the Docker engine")
	case pong.APIVersion != "" && versions.LessThan(pong.APIVersion, oldestAPI):
		return fmt.Errorf("the Docker engine at %s is too old: it speaks API %s, replicas need %s (Docker 1.13)", api.DaemonHost(), pong.APIVersion, oldestAPI)
	}
	return nil
}

var errSilent = errors.New("the Docker engine does not answer")

// dockerAPI is what the neighbours of this file call, so that the client is imported
// here alone and another one can take its place.
type dockerAPI = client.Client

// unreachable says whether an error means that no engine answered.
func unreachable(err error) bool {
	return client.IsErrConnectionFailed(err) || errors.Is(err, errSilent)
}

// check finds what would keep every replica from starting, until there is nothing.
func (d *Docker) check(ctx context.Context) error {
	d.checkMu.Lock()
	defer d.checkMu.Unlock()
	if d.checked {
		return nil
	}
	if err := checkSocketPath(d.socket(strings.Repeat("x", idLength))); err != nil {
		return err
	}
	if err := ping(ctx, d.api, pingWithin); err != nil {
		return err
	}
	if err := d.checkEngine(ctx); err != nil {
		return err
	}
	d.checked = true
	return nil
}

func (d *Docker) checkEngine(ctx context.Context) error {
	info, err := d.api.Info(ctx)
	if err != nil {
		return explain(err, "ask the Docker engine about itself")
	}
	if slices.Contains(info.SecurityOptions, "name=rootless") {
		return errors.New("the Docker engine is a rootless one, whose users are not this machine's: replicas could not share the data directory. Use --engine embedded, or the system's engine")
	}
	if info.MemoryLimit { // else the kernel has none
		d.memory = memoryOf(info.MemTotal)
	}
	if err := d.checkVolume(ctx); err != nil {
		return err
	}
	if d.cfg.Network == "" {
		return nil
	}
	_, err = d.api.NetworkInspect(ctx, d.cfg.Network, network.InspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return fmt.Errorf("there is no Docker network %s: make it with `docker network create %s`, or leave --registry-network out", d.cfg.Network, d.cfg.Network)
	}
	return explain(err, "look for the network "+d.cfg.Network)
}
