package sim

import (
	"crypto/x509"
	"path/filepath"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// gate is a step of the rotation that has to wait for hosts: the records before
// and after it, and what the one before says of hosts and times. What the step
// itself decided about hosts is under test and excuses nobody.
type gate struct {
	before, after record
	hosts         []*host // covered before
	overdue       bool    // the deadline is over
	// hurried: the step may go on without anybody, because a key is stolen and the
	// deadline over, or because the active CA is about to end.
	hurried bool
}

// checkGate: S2, S7 and who is left behind.
func (w *world) checkGate(event string, rec record) {
	w.mu.Lock()
	g := gate{before: w.last, after: rec}
	w.mu.Unlock()
	g.hosts = w.covered()
	g.overdue = !time.Now().Before(g.before.Value.Rotation.Deadline)
	g.hurried = g.overdue && g.before.Value.Rotation.Compromised || g.pressing()
	w.checkLeft(event, g)
	switch event {
	case "switch":
		w.checkSwitch(g)
	case "retire":
		w.checkRetire(g)
	}
}

// pressing: within 7 days of the active CA's end, a twentieth of a short life, a
// step waits for the deadline only; once it has ended, for nobody.
func (g gate) pressing() bool {
	active, err := g.before.active()
	if err != nil {
		return false
	}
	left := time.Until(active.NotAfter)
	life := active.NotAfter.Sub(active.NotBefore.Add(certs.CABackdate))
	return left <= 0 || g.overdue && left <= min(7*day, life/20)
}

// waited: the step must not happen before this host is ready.
func (w *world) waited(g gate, h *host) bool {
	r := g.before.Value.Rotation
	switch {
	case slices.Contains(r.Skipped, w.idOf(h)):
		return false
	case !w.present(h) && (g.overdue || r.Compromised):
		return false
	}
	return !g.hurried || !slices.Contains(g.after.Value.Rotation.Uncover, w.idOf(h))
}

// checkLeft: hosts are left behind only by a step that may hurry, and when they are
// away: after a theft or a restore, or because no predecessor reaches them.
func (w *world) checkLeft(event string, g gate) {
	for _, h := range g.hosts {
		r := g.after.Value.Rotation
		if !slices.Contains(r.Uncover, w.idOf(h)) || g.hurried || slices.Contains(g.before.Value.Rotation.Skipped, w.idOf(h)) {
			continue
		}
		away := !w.present(h)
		switch {
		case away && (event == "open" || g.before.Value.Rotation.Compromised):
		case away && w.knownGeneration(h) < r.Reach:
		case w.trusts(h).Generation < r.Reach:
		default:
			w.fail("S1: %s leaves %s behind, which is present or was within reach (%d of %d)", event, h.name, w.trusts(h).Generation, r.Reach)
		}
	}
}

// checkSwitch: S2, every host that must be waited for has the new root itself.
func (w *world) checkSwitch(g gate) {
	cert, err := g.after.active()
	if err != nil {
		w.fail("%v", err)
		return
	}
	active, checked := certs.FingerprintOf(cert), 0
	for _, h := range g.hosts {
		if !w.waited(g, h) {
			continue
		}
		checked++
		roots, err := readRoots(h.caFile())
		if err != nil {
			w.fail("S2: switched although %s has no CA file: %v", h.name, err)
			continue
		}
		if !slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return certs.FingerprintOf(c) == active }) {
			w.fail("S2: switched although %s does not have the new root", h.name)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.switchers += checked
}

// checkRetire: S7, the old CA goes only when every host that must be waited for
// has taken what came with the switch. After a theft it goes at once.
func (w *world) checkRetire(g gate) {
	if g.before.Value.Rotation.Compromised {
		return
	}
	checked := 0
	for _, h := range g.hosts {
		if !w.waited(g, h) {
			continue
		}
		checked++
		if has, switched := w.trusts(h).Revision, g.before.Value.Rotation.SwitchedRev; has < switched {
			w.fail("S7: retired although %s has revision %d and the switch is %d", h.name, has, switched)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retirers += checked
}

// trusts is what a host has accepted, from its disk; zero when it has nothing.
func (w *world) trusts(h *host) (t struct{ Revision, Generation uint64 }) {
	readJSON(filepath.Join(h.state(), "trusted.json"), &t)
	return t
}

// knownGeneration is the newest that a host has told the server, as far as that
// is on record.
func (w *world) knownGeneration(h *host) uint64 {
	var f struct{ Value struct{ Generation uint64 } }
	readJSON(filepath.Join(w.state(), "records", "fleet", w.idOf(h)+".json"), &f)
	return f.Value.Generation
}
