package agent

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// reconcile brings the disk to what is wanted and returns what stood in the way.
// A refused offer stays a problem until one is accepted. It is judged again each
// time, since what was wrong may have been this host's: a full disk, the clock.
func (a *agent) reconcile(message *pb.Wanted) (problem string) {
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
	d := Decide(a.have(), nil)
	if d.Install || len(a.bundle.Roots) > 0 && a.unplanned() {
		if err := a.install(); err != nil {
			a.log.Error("not installed", "generation", a.bundle.Generation, "err", err)
			a.missing = err.Error()
			return err.Error()
		}
		a.missing = ""
		a.log.Info("installed", "generation", a.bundle.Generation, "fingerprint", a.bundle.Fingerprint().Short())
	}
	return a.refused
}

// have is what this host has, its files as re-read.
func (a *agent) have() Have {
	onDisk, _ := proveFiles(a.docker.Read(a.names, a.owned))
	return Have{Generation: a.bundle.Generation, Fingerprint: a.bundle.Fingerprint(), OnDisk: onDisk}
}

// consider vets an offer and keeps it if it is to be accepted.
func (a *agent) consider(message *pb.Wanted) error {
	o, err := vet(message, a.enrolment.Domain, a.enrolment.Adopted, a.cfg.Now())
	if err != nil {
		return err
	}
	d := Decide(a.have(), &Offer{Generation: o.bundle.Generation, Fingerprint: o.bundle.Fingerprint()})
	if d.Refused != "" {
		return errors.New(d.Refused)
	}
	if err := a.takeControlCAs(o.controlCAs); err != nil {
		return err
	}
	return a.accept(o, d.Accept)
}

// unplanned: a name was added and has no file yet.
func (a *agent) unplanned() bool {
	plan := a.docker.Plan(a.names, a.owned)
	return len(plan.Files) != len(a.owned.Files)
}

// accept keeps an offer: durably first, then in memory.
func (a *agent) accept(o offered, newBundle bool) error {
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
func (a *agent) install() error {
	plan := a.docker.Plan(a.names, a.owned)
	if len(plan.Files) != len(a.owned.Files) || len(plan.Dirs) != len(a.owned.Dirs) {
		if err := a.store.write(ownedFile, owned{Format: stateFormat, Owned: plan}); err != nil {
			return err
		}
		a.owned = plan
	}
	return a.docker.Apply(a.names, a.owned, a.bundle.PEM())
}

// prove gathers evidence about what is on disk now, whatever was done before.
func (a *agent) prove(ctx context.Context, problem string) certs.Evidence {
	e := certs.Evidence{Revision: a.wanted.revision, Rotation: a.wanted.rotation}
	found := a.docker.Read(a.names, a.owned)
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
		a.handshakes(ctx, fingerprint, roots)
		e.Probe, e.Live = a.proof.probe, a.proof.live
	}
	e.Problem = firstOf(problem, filesProblem, aloneProblem, a.proof.problem)
	return e
}

// onDisk returns the accepted roots if that is what every file has.
func (a *agent) onDisk(fingerprint certs.Fingerprint) []*x509.Certificate {
	if fingerprint == "" || fingerprint != a.bundle.Fingerprint() {
		return nil
	}
	return a.bundle.Roots
}

// handshakes renews part (d) of evidence when something changed, when it was
// not good, while a future chain is offered, and now and then.
func (a *agent) handshakes(ctx context.Context, fingerprint certs.Fingerprint, roots []*x509.Certificate) {
	p := &a.proof
	next := false
	for _, l := range a.wanted.leaves {
		next = next || l.next
	}
	if p.revision == a.wanted.revision && p.fingerprint == fingerprint && !bad(p.probe) && p.live == certs.OK && !next && p.ticks < shakeEvery {
		return
	}
	*p = proof{revision: a.wanted.revision, fingerprint: fingerprint}
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, handshakesLimit)
	defer cancel()
	var why string
	if next {
		p.probe, p.problem = a.shake(ctx, a.names, a.wanted.leaves, roots, true, a.wanted.fallback)
	}
	p.live, why = a.shake(ctx, a.names, a.wanted.leaves, roots, false, a.wanted.fallback)
	p.problem = firstOf(p.problem, why)
	if parent.Err() != nil {
		*p = proof{} // cut short
	}
}
