// Package agent keeps a Docker host's trust in step with its server: it joins,
// holds a stream, installs the bundle that is wanted, proves that it works and
// says so.
//
// One loop owns all state and asks one pure question (Decide): is what I have
// what is wanted? Gossip, the slow timer and file events only wake it. It knows
// no phases of a rotation, and trusts nobody but the server of its enrolment.
// Run starts all goroutines and awaits them.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/gossip"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const (
	defaultCertsDir = "/etc/docker/certs.d"
	defaultGossip   = ":7947"
	off             = "off"

	// defaultKeepalive finds dead connections (DESIGN §7).
	defaultKeepalive = 30 * time.Second

	// defaultTick until the server says otherwise.
	defaultTick = 60 * time.Second
	// retryFirst is how soon evidence that was not good is tried again; it
	// doubles up to the tick.
	retryFirst = time.Second
	// shakeEvery is how many ticks a good handshake is believed while nothing
	// changes.
	shakeEvery = 10
	// maxNames bounds the names of a registry.
	maxNames = 100
)

// agent is a running agent. Its loop owns all of it but link and gossip, which
// are safe for concurrent use, and the identity, see identity.
type agent struct {
	cfg   Config
	store store
	log   *slog.Logger

	enrolment enrolment
	names     []certs.Name
	docker    install.Docker
	owned     install.Owned
	bundle    certs.Bundle // accepted last; no roots before the first
	ring      ring         // of gossip, taken last
	wanted    wanted       // newest from the server; zero before the first
	newest    *pb.Wanted   // the newest offer, accepted or not; nil before the first
	refused   string       // why the newest offer was refused; "" when it was not
	missing   string       // why the bundle is not on disk; "" when it is
	// considered is the revision of the newest offer, accepted or not; 0: none.
	considered uint64
	boot       uint64
	sequence   uint64
	proof      proof
	retry      time.Duration // next wait after evidence that was not good
	shown      Status        // as written last

	link   *link
	gossip *gossip.Member // nil when off
	drift  chan struct{}  // one slot: look at the files

	changing sync.Mutex // held while the identity file is changed
}

// wanted is the newest state from the server, vetted.
type wanted struct {
	revision, rotation uint64
	leaves             []leaf
	fallback           string
}

// proof is the last handshakes, believed for a while.
type proof struct {
	revision    uint64
	fingerprint certs.Fingerprint
	probe, live certs.Outcome
	problem     string
	ticks       int
}

func (cfg Config) withDefaults() Config {
	if cfg.DockerCertsDir == "" {
		cfg.DockerCertsDir = defaultCertsDir
	}
	if cfg.GossipListen == "" {
		cfg.GossipListen = defaultGossip
	}
	if cfg.Keepalive == 0 {
		cfg.Keepalive = defaultKeepalive
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	if cfg.WatchFile == nil {
		cfg.WatchFile = watchDir
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Name == "" {
		cfg.Name = defaultName()
	}
	return cfg
}

// Run keeps the host in step until ctx ends. It joins first when it has a token
// and no identity. The server may be away for as long as it likes: the last-good
// state is installed and kept meanwhile.
func Run(ctx context.Context, cfg Config) error {
	a, release, err := open(ctx, cfg.withDefaults())
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // stopped while it joined: the same line joins later
	case err != nil:
		return err
	}
	defer release()
	if a.boot, err = a.store.nextBoot(); err != nil {
		return err
	}
	a.link = newLink(a)
	a.startGossip()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.loop(ctx) })
	g.Go(func() error { return a.link.run(ctx) })
	if a.gossip != nil {
		g.Go(func() error { return a.gossip.Run(ctx) })
	}
	g.Go(func() error { return a.watch(ctx) })
	return g.Wait()
}

// open takes the data directory, joins if needed and loads what was trusted.
func open(ctx context.Context, cfg Config) (a *agent, release func(), err error) {
	s, err := openStore(cfg.DataDir)
	if err != nil {
		return nil, nil, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, nil, err
	}
	a = &agent{cfg: cfg, store: s, log: cfg.Log, docker: install.Docker{Dir: cfg.DockerCertsDir}, drift: make(chan struct{}, 1)}
	if err := a.enter(ctx); err != nil {
		unlock()
		return nil, nil, err
	}
	return a, unlock, nil
}

// enter makes sure that this machine is a host of a fleet, and loads its state.
func (a *agent) enter(ctx context.Context) error {
	if err := a.store.sweep(); err != nil {
		return err
	}
	joined, err := a.store.read(identityFile, &a.enrolment)
	if err != nil {
		return err
	}
	if joined {
		if err := a.checkJoin(); err != nil {
			return err
		}
		if err := a.store.settlePending(a.enrolment); err != nil {
			return err
		}
		return a.load()
	}
	if err := a.docker.Check(); err != nil {
		return err // before the token is used up
	}
	if a.enrolment, err = enroll(ctx, a.cfg, a.store); err != nil {
		return err
	}
	a.log.Info("joined", "host", a.enrolment.Name, "domain", a.enrolment.Domain, "fleet", a.enrolment.FleetID)
	return a.load()
}

// load reads the last-good state.
func (a *agent) load() error {
	var o owned
	if _, err := a.store.read(ownedFile, &o); err != nil {
		return err
	}
	a.owned, a.ring = o.Owned, a.enrolment.Gossip
	var t trusted
	ok, err := a.store.read(trustedFile, &t)
	if err != nil {
		return err
	}
	if _, err := parseNames(a.enrolment.Domain, nil); err != nil {
		return a.store.damaged(identityFile, err)
	}
	if a.names, err = parseNames(a.enrolment.Domain, t.Names); err != nil {
		return a.store.damaged(trustedFile, err)
	}
	if !ok {
		return nil
	}
	if a.bundle, err = t.bundle(); err != nil {
		return a.store.damaged(trustedFile, err)
	}
	a.wanted.revision, a.wanted.rotation, a.wanted.fallback = t.Revision, t.Rotation, t.Registry
	if len(t.Gossip.Keys) > 0 {
		a.ring = t.Gossip
	}
	return nil
}

// loop owns the state: each turn takes the newest wanted state if there is one,
// brings the disk to it, proves it and reports.
func (a *agent) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		ticked := false
		var offer *pb.Wanted
		select {
		case <-ctx.Done():
			a.showStopped()
			return nil
		case <-a.link.offers.nudge:
			offer = a.link.offers.take()
		case <-a.link.asked: // a new stream wants its first report
		case <-a.drift:
		case <-timer.C:
			ticked = true
		}
		again := a.turn(ctx, offer, ticked)
		timer.Reset(again)
	}
}

// turn is one pass of the loop; it returns when the next one is due.
func (a *agent) turn(ctx context.Context, offer *pb.Wanted, ticked bool) time.Duration {
	if ticked {
		a.proof.ticks++
	}
	problem := a.reconcile(offer)
	proving := a.link.until(ctx)
	evidence := a.prove(proving, problem)
	if proving.Err() != nil {
		return 0 // a newer offer cut the handshakes short: they are evidence of nothing
	}
	a.show(evidence)
	a.link.reports.put(&answer{report: a.report(evidence), revision: a.considered})
	tick := a.tick()
	if evidence.Problem == "" && !bad(evidence.Probe) && !bad(evidence.Live) {
		a.retry = retryFirst
		return tick
	}
	wait := min(a.retry, tick)
	a.retry = min(max(2*a.retry, retryFirst), tick)
	return max(wait, retryFirst)
}

func bad(o certs.Outcome) bool { return o != certs.OK && o != certs.NotTried }

func (a *agent) tick() time.Duration { return a.link.pace().tick }

func defaultName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return hostName(name)
}

// watch nudges the loop when something happens where our files are. Without
// events, the tick finds drift.
func (a *agent) watch(ctx context.Context) error {
	err := a.cfg.WatchFile(ctx, a.cfg.DockerCertsDir, func() {
		select {
		case a.drift <- struct{}{}:
		default:
		}
	})
	if err != nil && ctx.Err() == nil {
		a.log.Warn("changes of files are found by the slow check alone", "err", fmt.Errorf("watch %s: %w", a.cfg.DockerCertsDir, err))
	}
	return nil
}
