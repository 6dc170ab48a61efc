package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
)

// host is one machine of the fleet.
type host struct {
	name   string
	dir    string
	gossip string // address
	layers agent.Layers
	agent  *process // nil while stopped
	ending *process // stopped, but perhaps not at its end
	token  string   // to join with
	// ahead is how far the host's clock is ahead of the others'.
	ahead time.Duration
	id    string // once covered; guarded by world.mu, see idOf
	// up: agent and link; downSince and upSince are of the last changes.
	// Guarded by world.mu.
	up                 bool
	downSince, upSince time.Time
	// drifted: somebody else broke its files.
	drifted bool
}

func (h *host) caFile() string { return filepath.Join(h.dir, "certs.d", registry, "ca.crt") }
func (h *host) state() string  { return filepath.Join(h.dir, "state") }

// awaitEnd waits until a stopped agent has ended: gossip takes a probe's time.
func (h *host) awaitEnd(t *testing.T) {
	t.Helper()
	if h.ending != nil {
		h.ending.end(t)
		h.ending = nil
	}
}

// hasEnded says whether awaitEnd returns at once.
func (h *host) hasEnded() bool { return h.ending == nil || len(h.ending.done) > 0 }

// addHost starts an agent that joins.
func (w *world) addHost(name string, layers agent.Layers) {
	w.mu.Lock()
	i := len(w.hosts)
	w.hosts[name] = &host{
		name: name, dir: filepath.Join(w.dir, name), layers: layers, token: w.token,
		gossip: fmt.Sprintf("10.0.%d.%d:7947", 1+i/200, 1+i%200),
	}
	w.mu.Unlock()
	w.startAgent(name)
}

// startAgent starts the agent of a host, or starts it again.
func (w *world) startAgent(name string) {
	h := w.host(name)
	h.awaitEnd(w.t)
	cfg := w.agentConfig(h)
	w.mu.Lock()
	h.up, h.upSince = true, time.Now()
	w.mu.Unlock()
	h.agent = start(func(ctx context.Context) error { return keepRunning(ctx, cfg) })
}

// startAgain is how long an init system waits before it starts an agent again.
const startAgain = 5 * time.Second

// keepRunning is the init system of a host: an agent that finds no server to join
// is started again.
func keepRunning(ctx context.Context, cfg agent.Config) error {
	for {
		err := agent.Run(ctx, cfg)
		if !errors.Is(err, agent.ErrUnreachable) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(startAgain):
		}
	}
}

func (w *world) agentConfig(h *host) agent.Config {
	cfg := agent.Config{
		DataDir: h.state(), DockerCertsDir: filepath.Join(h.dir, "certs.d"),
		Server: rpc, Token: h.token, Name: h.name, Layers: h.layers,
		GossipEvery: w.pace.gossip, Keepalive: w.pace.keepalive,
		Dial: w.net.dialFrom(h.name),
		WatchFile: func(ctx context.Context, _ string, _ func()) error {
			<-ctx.Done()
			return nil
		},
		Log: agentLog(h.name),
	}
	if h.ahead != 0 {
		cfg.Now = func() time.Time { return time.Now().Add(h.ahead) }
	}
	if !h.layers.NoGossip {
		cfg.GossipTransport = w.gossip.Transport(h.gossip)
	}
	return cfg
}

// agentLog discards, unless SIM_LOG is set.
func agentLog(name string) *slog.Logger {
	if os.Getenv("SIM_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("agent", name)
}

// stopAgent stops an agent and waits for its end.
func (w *world) stopAgent(name string) {
	w.leaveAgent(name)
	w.host(name).awaitEnd(w.t)
}

// leaveAgent stops an agent without waiting.
func (w *world) leaveAgent(name string) {
	h := w.host(name)
	if h.agent == nil {
		return
	}
	w.mu.Lock()
	if h.up { // else its link is down already
		h.up, h.downSince = false, time.Now()
	}
	w.mu.Unlock()
	h.agent.stop()
	h.agent, h.ending = nil, h.agent
}

// drifted says that somebody else breaks a host's files.
func (w *world) drifted(name string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[name].drifted = is
}

// cutLink takes a host off the network, or back.
func (w *world) cutLink(name string, down bool) {
	w.mu.Lock()
	h := w.hosts[name]
	if h.up = !down; down {
		h.downSince = time.Now()
	} else {
		h.upSince = time.Now()
	}
	w.mu.Unlock()
	w.net.cut(name, down)
	w.gossip.SetDown(h.gossip, down)
}

func (w *world) host(name string) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hosts[name]
}

func (w *world) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.hosts {
		names = append(names, name)
	}
	return names
}
