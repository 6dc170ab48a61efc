package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// reconcile brings the disk to what is wanted and returns what stood in the way.
// A refused offer stays a problem until one is accepted. It is judged again each
// time, since what was wrong may have been this host's: a full disk, the clock.
func (a *membership) reconcile(message *pb.Wanted) (problem string) {
	again := message == nil && a.refused != ""
	if again {
		message = a.newest
	}
	if message != nil {
		before := a.refused
		a.refused, a.newest, a.considered = "", message, message.GetRevision()
		if err := a.consider(message); err != nil {
			a.refused = err.Error()
			if !again || before != a.refused {
				a.log.Error("wanted state refused", "err", err)
			}
		}
	}
	have, astray := a.have()
	d := Decide(have, nil)
	if d.Install || len(a.bundle.Roots) > 0 && a.unplanned() {
		drifted, held := a.drifted()
		if held {
			return a.refused // evidence says what is contested
		}
		if err := a.install(); err != nil {
			a.log.Error("not installed", "generation", a.bundle.Generation, "err", err)
			a.missing = err.Error()
			return err.Error()
		}
		a.missing = ""
		a.mended(drifted)
	} else if astray && len(a.bundle.Roots) > 0 {
		a.mendAside()
	}
	a.repairs.installed = a.bundle.Fingerprint()
	return a.refused
}

// have is what this host has, its files as re-read, and whether one aside is wrong.
func (a *membership) have() (Have, bool) {
	found := a.host.Read(a.names, a.owned)
	onDisk, _ := proveFiles(found)
	return Have{Generation: a.bundle.Generation, Fingerprint: a.bundle.Fingerprint(), OnDisk: onDisk}, astray(found, a.bundle.Fingerprint())
}

// consider vets an offer and keeps it if it is to be accepted.
func (a *membership) consider(message *pb.Wanted) error {
	o, err := vet(message, a.enrolment.Domain, a.enrolment.Adopted, a.cfg.Now())
	if err != nil {
		return err
	}
	accepted := Have{Generation: a.bundle.Generation, Fingerprint: a.bundle.Fingerprint()}
	d := Decide(accepted, &Offer{Generation: o.bundle.Generation, Fingerprint: o.bundle.Fingerprint()})
	if d.Refused != "" {
		return errors.New(d.Refused)
	}
	if !slices.Equal(o.names, a.names) {
		if err := a.cfg.unclaimed(o.names); err != nil {
			return fmt.Errorf("wanted state refused: %w", err)
		}
	}
	if err := a.takeControlCAs(o.controlCAs); err != nil {
		return err
	}
	before, known := listed(a.names), len(a.bundle.Roots) > 0
	if err := a.accept(o, d.Accept); err != nil {
		return err
	}
	if now := listed(a.names); known && now != before {
		a.log.Warn("the server has changed the registry's names: it decides what Docker trusts for these", "before", before, "names", now)
	}
	return nil
}

// unplanned: a name or a runtime was added and has no file yet, or one is not to be
// installed for any more.
func (a *membership) unplanned() bool { return a.unplannedIn(a.host) }

func (a *membership) unplannedIn(at install.Host) bool {
	plan := at.Plan(a.names, a.owned)
	return len(plan.Files) != len(a.owned.Files) || !slices.Equal(a.runtimes, a.cfg.Runtimes)
}

// accept keeps an offer: durably first, then in memory.
func (a *membership) accept(o offered, newBundle bool) error {
	if newBundle || o.revision != a.wanted.revision || !o.gossip.same(a.ring) {
		if err := a.store.write(trustedFile, o.trusted()); err != nil {
			return err
		}
	}
	if newBundle || len(a.bundle.Roots) == 0 {
		a.bundle = o.bundle
	}
	a.names = o.names
	a.wanted = wanted{revision: o.revision, rotation: o.rotation, leaves: o.leaves, fallback: o.registry}
	a.useGossip(o.gossip)
	return nil
}

// install writes down what we own, then writes it.
func (a *membership) install() error {
	plan, err := a.letGo(a.host.Plan(a.names, a.owned))
	if err != nil {
		return err
	}
	if len(plan.Files) != len(a.owned.Files) || len(plan.Dirs) != len(a.owned.Dirs) || !slices.Equal(plan.Homes, a.owned.Homes) || !slices.Equal(a.runtimes, a.cfg.Runtimes) {
		for _, dir := range a.cfg.madeByOthers(plan.Files) {
			if !slices.Contains(plan.Dirs, dir) {
				plan.Dirs = append(plan.Dirs, dir)
			}
		}
		if err := a.store.write(ownedFile, newOwned(plan, a.cfg.Runtimes)); err != nil {
			return err
		}
		a.owned, a.runtimes = plan, a.cfg.Runtimes
	}
	return a.host.Apply(a.names, a.owned, a.bundle.PEM())
}

// prove gathers evidence about what is on disk now, whatever was done before.
func (a *membership) prove(ctx context.Context, problem string) certs.Evidence {
	e := certs.Evidence{Revision: a.wanted.revision, Rotation: a.wanted.rotation}
	found := a.host.Read(a.names, a.owned)
	fingerprint, filesProblem := proveFiles(found)
	e.Fingerprint = fingerprint
	e.Offline = filesProblem == "" && fingerprint != ""
	roots := a.onDisk(fingerprint)
	if roots != nil {
		e.Generation = a.bundle.Generation
	}
	var aloneProblem string
	e.SoloRoots, aloneProblem = proveAlone(roots, a.wanted.leaves, a.cfg.Now())
	if len(a.wanted.leaves) > 0 && roots != nil {
		a.handshakes(ctx, fingerprint, roots, e.SoloRoots)
		e.Probe, e.Live = a.proof.probe, a.proof.live
	}
	a.repairs.seen, a.places = a.lookAt(found), places(found)
	a.repairs.calm(time.Now())
	if path := a.repairs.contested(); path != "" {
		e.Offline = false // what holds for a moment is no evidence
		problem = firstOf(problem, contestedText(path))
	}
	e.Problem = firstOf(problem, filesProblem, aloneProblem, a.proof.problem)
	return e
}

// maxLull is half of what a compromised CA's rotation waits for hosts.
const maxLull = 15 * time.Second

// lull waits for a random part of twice the window, which a fleet of up to a thousand
// does not have, before the handshakes about something new. The files are installed at
// once; handshakes cost the server more than that, and if ten thousand hosts began
// theirs together, each would take longer than its limit, and all would begin again.
// It is false when there is something else to do first: a newer offer, or files that
// changed.
func (a *membership) lull(ctx context.Context) bool {
	wait := min(2*a.link.jitter(), maxLull)
	if wait == 0 || a.proof.revision == 0 || a.proof.revision == a.wanted.revision {
		return true
	}
	over := time.After(wait)
	for {
		select {
		case <-ctx.Done():
			return false
		case <-a.drift:
			if a.disturbed() {
				return false
			}
		case <-over:
			return true
		}
	}
}

// onDisk returns the accepted roots if that is what every file has.
func (a *membership) onDisk(fingerprint certs.Fingerprint) []*x509.Certificate {
	if fingerprint == "" || fingerprint != a.bundle.Fingerprint() {
		return nil
	}
	return a.bundle.Roots
}

// handshakes renews part (d) of evidence when other certificates are served, when it
// was not good, while a future chain is offered, and now and then.
func (a *membership) handshakes(ctx context.Context, fingerprint certs.Fingerprint, roots []*x509.Certificate, solo []certs.Fingerprint) {
	p := &a.proof
	next := false
	for _, l := range a.wanted.leaves {
		next = next || l.next
	}
	if p.revision == a.wanted.revision && p.fingerprint == fingerprint && !bad(p.probe) && p.live == certs.OK && !next && p.ticks < shakeEvery {
		return
	}
	served := servedOf(a.wanted.leaves)
	lives := p.covers(served, a.names, roots, solo)
	old := *p
	*p = proof{revision: a.wanted.revision, fingerprint: fingerprint, served: served, names: a.names}
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, handshakesLimit)
	defer cancel()
	var why string
	if next {
		p.probe, p.problem = a.shake(ctx, a.names, a.wanted.leaves, roots, true, a.wanted.fallback)
	}
	if lives {
		p.live, p.ticks = old.live, old.ticks
	} else {
		p.live, why = a.shake(ctx, a.names, a.wanted.leaves, roots, false, a.wanted.fallback)
	}
	p.problem = firstOf(p.problem, why)
	if parent.Err() != nil {
		*p = proof{} // cut short
	}
}
