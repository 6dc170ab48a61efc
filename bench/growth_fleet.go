package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trustcast/trustcast/agent"
)

// fleetVerb makes this program a process of many agents instead: see fleetPlan, which is
// in the environment as fleetVariable.
const (
	fleetVerb     = "fleet"
	fleetVariable = "BENCH_FLEET"
)

// fleetPlan is what such a process does.
type fleetPlan struct {
	Dir              string
	First, Agents    int // of this process: the number of the first, and how many
	Gossip           bool
	Server, Registry string
	Token            string
}

// fleetSaid is a line of such a process: all its agents have installed a generation.
type fleetSaid struct {
	Generation uint64
	Last       time.Time
}

// fleetGossipEvery is ten times the default: one process has hundreds of members, each
// of which hears of each, and two cores are soon busy with nothing else.
const fleetGossipEvery = 10 * time.Second

// joining is how many agents join at a time: enough for two cores.
const joining = 32

// runFleet runs real agents until ctx ends: agent.Run with a real configuration. Each
// has an address of its own, a data directory and a certs.d.
func runFleet(ctx context.Context, text string, out io.Writer) error {
	var plan fleetPlan
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	debug.SetGCPercent(200) // thousands of agents in one process: their garbage is collected together
	said := &installations{all: plan.Agents, out: json.NewEncoder(out), counts: map[uint64]int{}}
	slots := make(chan struct{}, joining)
	g, ctx := errgroup.WithContext(ctx)
	for i := range plan.Agents {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return g.Wait()
		}
		free := sync.OnceFunc(func() { <-slots })
		cfg := plan.agent(i, slog.New(&installedHandler{said: said, first: free}))
		g.Go(func() error {
			defer free()
			err := agent.Run(ctx, cfg)
			for errors.Is(err, agent.ErrUnreachable) && ctx.Err() == nil { // an init system starts it again
				err = agent.Run(ctx, cfg)
			}
			if err != nil {
				return fmt.Errorf("agent %s: %w", cfg.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// agent is the configuration of one.
func (p fleetPlan) agent(i int, log *slog.Logger) agent.Config {
	n := p.First + i
	name := fmt.Sprintf("host-%d", n)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}}
	cfg := agent.Config{
		DataDir: filepath.Join(p.Dir, name, "state"), DockerCertsDir: filepath.Join(p.Dir, name, "certs.d"),
		Server: p.Server, Token: p.Token, Name: name, GossipListen: "off", Log: log,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != p.Server { // the registry by its name
				address = p.Registry
			}
			return dialer.DialContext(ctx, network, address)
		},
		WatchFile: func(ctx context.Context, _ string, _ func()) error { // a user may have 128 of the kernel's
			<-ctx.Done()
			return nil
		},
	}
	if p.Gossip {
		cfg.GossipListen, cfg.GossipEvery = "127.0.0.1:0", fleetGossipEvery
	}
	return cfg
}

// installations counts who has installed which generation.
type installations struct {
	all int
	out *json.Encoder

	mu     sync.Mutex
	counts map[uint64]int
}

func (i *installations) add(generation uint64, at time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.counts[generation]++; i.counts[generation] < i.all {
		return nil
	}
	return i.out.Encode(fleetSaid{Generation: generation, Last: at})
}

// installedHandler listens to an agent's log for the line that follows a durable
// install.
type installedHandler struct {
	said  *installations
	first func() // after the first
}

// Enabled takes transitions.
func (h *installedHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle counts installations.
func (h *installedHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "installed" {
		return nil
	}
	at := time.Now()
	h.first()
	var generation uint64
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "generation" {
			generation = a.Value.Uint64()
		}
		return a.Key != "generation"
	})
	return h.said.add(generation, at)
}

// WithAttrs and WithGroup are not used by agents.
func (h *installedHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup as WithAttrs.
func (h *installedHandler) WithGroup(string) slog.Handler { return h }

// fleetMain is the whole of a process of agents. It does not wait for their ends.
func fleetMain(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- runFleet(ctx, os.Getenv(fleetVariable), os.Stdout) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-done:
		return err
	}
}
