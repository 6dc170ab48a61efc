package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/gossip"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const (
	// defaultTick until the server says otherwise.
	defaultTick = 60 * time.Second
	// retryFirst is how soon evidence that was not good is tried again; it
	// doubles up to the tick.
	retryFirst = time.Second
	// restAfter is how long after a turn without another one the agent is at rest;
	// Resting is told then, and each restEvery from then on.
	restAfter = 5 * time.Second
	restEvery = 30 * time.Second
	// shakeEvery is how many ticks a good handshake is believed while nothing
	// changes.
	shakeEvery = 10
	// maxNames bounds the names of a registry.
	maxNames = 100
)

// membership is this host's place in one fleet: its identity, its files and its member
// of gossip. Its loop owns all of it but link and gossip, which
// are safe for concurrent use, and the identity, see identity.
type membership struct {
	cfg   Config
	store store
	log   *slog.Logger

	enrolment enrolment
	names     []certs.Name
	host      install.Host // looked for again with each tick
	owned     install.Owned
	runtimes  []string     // that owned was planned for
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
	repairs    repairs
	places     []*pb.Place   // as of the last evidence
	unfound    string        // what was said last of runtimes that are not here
	aside      string        // what was said last of a user's home
	retry      time.Duration // next wait after evidence that was not good
	shown      Status        // as written last, or to be written when showing fires
	showing    *time.Timer   // nil before the loop

	link   *link
	gossip *gossip.Member // nil when off
	// gossipProblem is why it is off where it should not be.
	gossipProblem string
	drift         chan struct{} // one slot: look at the files
	moved         chan []string // one slot: other directories to watch

	changing sync.Mutex // held while the identity file is changed

	// oldAddress of the server is what the identity file has while another is tried, ""
	// otherwise; guarded by the link's mu.
	oldAddress string

	fresh bool  // it has just been joined, and nothing has come from the server
	seat  *seat // what the agent that serves it wants to know; nil in Join
}

// wanted is the newest state from the server, vetted.
type wanted struct {
	revision, rotation uint64
	leaves             []leaf
	fallback           string
}

// serve keeps the host in step with one server until ctx ends. It joins first when it
// has a token and no identity. The server may be away for as long as it likes: the
// last-good state is installed and kept meanwhile.
func serve(ctx context.Context, cfg Config, s *seat) error {
	a, release, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer release()
	a.seat = s
	a.link = newLink(a)
	a.startGossip()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.loop(ctx) })
	g.Go(func() error { return a.link.run(ctx) })
	if a.gossip != nil {
		g.Go(func() error { return a.gossip.Run(ctx) })
	}
	dirs := a.watched()
	g.Go(func() error { return a.watch(ctx, dirs) })
	return g.Wait()
}

// open takes the data directory, joins if needed and loads what was trusted.
func open(ctx context.Context, cfg Config) (a *membership, release func(), err error) {
	if cfg.DataDir != cfg.base() && cfg.left() { // to open it would make the directory again
		return nil, nil, ErrNotJoined
	}
	s, err := openStore(cfg.DataDir)
	if err != nil {
		return nil, nil, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, nil, err
	}
	a = &membership{cfg: cfg, store: s, log: cfg.Log, drift: make(chan struct{}, 1), moved: make(chan []string, 1)}
	if err = a.detectFirst(); err == nil {
		err = a.enter(ctx)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return a, unlock, nil
}

// enter makes sure that this machine is a host of a fleet, and loads its state.
func (a *membership) enter(ctx context.Context) error {
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
	if err := a.host.Check(); err != nil {
		return err // before the token is used up
	}
	if a.enrolment, err = enroll(ctx, a.cfg, a.store); err != nil {
		return err
	}
	a.log.Info("joined", "host", a.enrolment.Name, "domain", a.enrolment.Domain, "fleet", a.enrolment.FleetID)
	a.fresh = true
	return a.load()
}

// load reads the last-good state.
func (a *membership) load() error {
	var o owned
	if _, err := a.store.read(ownedFile, &o); err != nil {
		return err
	}
	a.owned, a.runtimes, a.ring = o.Owned, o.Runtimes, a.enrolment.Gossip
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
// brings the disk to it, proves it and reports. It counts this start first, since
// reports carry the count; others listen and dial meanwhile.
func (a *membership) loop(ctx context.Context) (err error) {
	if a.boot, err = a.store.nextBoot(); err != nil {
		return err
	}
	defer a.seat.looping()()
	timer := time.NewTimer(0)
	defer timer.Stop()
	a.showing = time.NewTimer(showAfter)
	a.showing.Stop() // show starts it
	defer a.showing.Stop()
	var rest <-chan time.Time
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
			if !a.disturbed() {
				continue
			}
		case <-a.showing.C:
			a.writeShown()
			continue
		case <-a.seat.pulses():
			continue // it turns
		case <-timer.C:
			ticked = true
		case <-rest:
			a.cfg.Resting()
			rest = time.After(restEvery)
			continue
		}
		again := a.turn(ctx, offer, ticked)
		timer.Reset(again)
		if a.cfg.Resting != nil {
			rest = time.After(restAfter)
		}
	}
}

// turn is one pass of the loop; it returns when the next one is due.
func (a *membership) turn(ctx context.Context, offer *pb.Wanted, ticked bool) time.Duration {
	if ticked {
		a.proof.ticks++
		a.seat.ticked()
		a.detectAgain()
	}
	problem := a.reconcile(offer)
	if offer != nil || !a.fresh {
		a.fresh = false
		a.seat.settled()
	}
	proving := a.link.until(ctx)
	if !a.lull(proving) {
		return 0
	}
	evidence := a.prove(proving, problem)
	if proving.Err() != nil {
		return 0 // a newer offer cut the handshakes short: they are evidence of nothing
	}
	a.link.reports.put(&answer{report: a.report(evidence), revision: a.considered})
	a.show(evidence)
	return a.next(evidence)
}

// next is when the turn after this one is due.
func (a *membership) next(evidence certs.Evidence) time.Duration {
	tick, contested := a.tick(), a.repairs.calm(time.Now())
	switch {
	case contested > 0:
		return min(contested, tick)
	case evidence.Problem == "" && !bad(evidence.Probe) && !bad(evidence.Live):
		a.retry = retryFirst
		return tick
	}
	wait := min(a.retry, tick)
	a.retry = min(max(2*a.retry, retryFirst), tick)
	return max(wait, retryFirst)
}

func bad(o certs.Outcome) bool { return o != certs.OK && o != certs.NotTried }

func (a *membership) tick() time.Duration { return a.link.pace().tick }
