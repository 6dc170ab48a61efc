package explore

import (
	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/certs"
)

// print stands for the fingerprint of a bundle.
func (r roots) print() certs.Fingerprint {
	if r.a == 0 {
		return ""
	}
	return certs.Fingerprint([]byte{r.a, r.b})
}

// have is what the agent decides on. The file is re-read each time.
func (m *machine) have(h *host) agent.Have {
	return agent.Have{Generation: uint64(h.trusted.gen), Fingerprint: h.trusted.bundle.print(), OnDisk: m.reads(h).print()}
}

// take considers an offer and keeps it durably, if the real agent would.
func (m *machine) take(h *host, o offer) bool {
	d := m.decide(m.have(h), &agent.Offer{Generation: uint64(o.gen), Fingerprint: o.bundle.print()})
	if d.Refused != "" || h.trusted == o && h.leaves {
		return false
	}
	h.trusted, h.leaves = o, true
	h.shown = max(h.shown, o.rev)
	if m.whole {
		m.install(h)
	}
	return true
}

// install replaces the file by the trusted bundle.
func (m *machine) install(h *host) bool {
	if !m.decide(m.have(h), nil).Install {
		return false
	}
	h.disk, h.drifted = h.trusted.bundle, false
	return true
}

// prove gathers evidence about what is on disk now.
func (m *machine) prove(w *world, h *host) report {
	o := &h.trusted
	r := report{rev: o.rev, number: o.number, disk: m.reads(h), broken: h.broken, refuses: h.refuses}
	r.offline = !h.broken && r.disk.a != 0
	if r.disk.a == 0 || r.disk != o.bundle {
		return r // no roots that it could answer for
	}
	r.gen = o.gen
	if !h.leaves {
		return r
	}
	for _, c := range [2]ca{r.disk.a, r.disk.b} {
		if c != 0 && (c == o.active || c == o.next) && !w.spent(c) {
			r.solo.add(c)
		}
	}
	usable := w.valid()
	r.live = shake(o.active, o.version, ca(w.edge.Active), w.edge.version) //nolint:gosec // fewer than 64
	if r.live == accepted && (w.spent(o.active) || !verifies(r.disk, o.active, w.edge.Chain, usable)) {
		r.live = refused
	}
	if o.next != 0 {
		r.probe = shake(o.next, o.version, ca(w.edge.Next), w.edge.version) //nolint:gosec // fewer than 64
		if r.probe == accepted && !verifies(r.disk, o.next, w.edge.nextChain, usable) {
			r.probe = refused
		}
	}
	if h.refuses {
		r.live = refused
		if o.next != 0 {
			r.probe = refused
		}
	}
	return r
}

func (r *roots) add(c ca) {
	if r.a == 0 {
		r.a = c
	} else {
		r.b = c
	}
}

// shake says whether the edge shows the leaf that was announced.
func shake(wanted ca, version uint8, shown ca, shownVersion uint8) outcome {
	if wanted != shown || version != shownVersion {
		return other
	}
	return accepted
}

// report puts evidence on its way; the oldest on its way is lost when there are
// too many. Nothing is said twice while it is not needed.
func (m *machine) report(w *world, h *host) bool {
	if !h.stream || h.removed {
		return false
	}
	r := m.prove(w, h)
	said := h.evidence
	needed := !h.greeted || h.aged
	for i := range m.up {
		if h.up[i].seq != 0 {
			said, needed = h.up[i], false
		}
	}
	if !needed && m.sameReport(w, said, r) {
		return false
	}
	h.seq++
	r.seq = h.seq
	if m.up == 0 {
		return h.receive(r)
	}
	for i := range m.up {
		if h.up[i].seq == 0 {
			h.up[i] = r
			return true
		}
	}
	copy(h.up[:m.up], h.up[1:m.up])
	h.up[m.up-1] = r
	return true
}

// stop ends the agent: what was in its memory is gone.
func (h *host) stop() {
	h.leaves = false
	h.down = [2]offer{}
	h.hangUp()
}

// hangUp ends the stream, with the reports on it.
func (h *host) hangUp() {
	h.note()
	h.stream, h.up = false, [2]report{}
}

// enrol makes a machine a host anew: another identity, nothing trusted yet.
func (h *host) enrol(name string) {
	*h = host{name: name, present: true, stream: true, disk: h.disk, broken: h.broken, refuses: h.refuses}
}
