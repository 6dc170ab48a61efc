package explore

import (
	"slices"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/server/authority"
)

// code is what is explored. The negative controls break it, one function each.
type code struct {
	advance func(authority.Rotation, authority.View) authority.Rotation
	waiting func(authority.Rotation, authority.View) []authority.Wait
	cover   func(authority.Rotation, authority.Host, authority.View) bool
	restore func(authority.Rotation, uint64) authority.Rotation
	// takeBack is a rollback by the operator.
	takeBack func(authority.Rotation, authority.View) (authority.Rotation, error)
	decide   func(agent.Have, *agent.Offer) agent.Decision
	// look may change what the rotation sees.
	look func(*world, *authority.View)
	// reads is what the agent takes for the content of its disk.
	reads func(*host) roots
	// eager: the edge serves what the record is about to say.
	eager bool
	// forgetful: the hosts' own records are not told whom a step left behind.
	forgetful bool
}

func realCode() code {
	return code{
		advance:  authority.Rotation.Advance,
		waiting:  authority.Rotation.Waiting,
		cover:    authority.Rotation.Complete,
		restore:  authority.Rotation.Restore,
		takeBack: authority.Rotation.TakeBack,
		decide:   agent.Decide,
		reads:    func(h *host) roots { return h.disk },
	}
}

// machine lets events happen to worlds. Each worker has its own.
type machine struct {
	scope
	code
	eye
	// before is where events happen, after a copy of it that the last one may have
	// changed.
	before  *world
	after   world
	changed bool
}

func (m *machine) view(w *world) authority.View {
	v := m.eye.view(w)
	if m.look != nil {
		m.look(w, &v)
	}
	return v
}

// put makes next the record: the one durable write of each step.
func (w *world) put(next authority.Rotation) {
	if next.Phase == authority.Idle {
		w.late = false
	} else if !next.Deadline.Equal(w.rec.Deadline) {
		w.late = false
		next.Deadline = now.Add(patience)
	}
	next.Started = time.Time{}
	w.rec = next
	w.published = false
}

// publish has the edge take the record; takesNext: also the future chain.
func (w *world) publish(takesNext bool) {
	w.published = true
	r := w.rec
	if r.Restored {
		return // hosts are told, and nothing else changes
	}
	w.edge = pair{Serving: authority.Serving{Active: r.Active, Chain: r.Chain}, version: w.version}
	if r.Phase == authority.Staged && !r.Rollback && takesNext {
		w.edge.Next, w.edge.nextChain = r.Other, r.OtherChain
	}
}

// step is the next thing that the server does by itself, each with one durable
// write at most. The driver publishes first, and has the hosts' own records
// written (cover, uncover) before it goes on.
func (m *machine) step(w *world) bool {
	switch {
	case m.eager && w.ahead(m):
		return true
	case !w.published:
		w.publish(true)
		return true
	}
	for i := range w.hosts {
		if h := &w.hosts[i]; m.uncoverable(w, h) || m.coverable(w, h) {
			return false
		}
	}
	if len(w.rec.Uncover) > 0 {
		w.put(w.rec.Uncovered())
		return true
	}
	next := m.advance(w.rec, m.view(w))
	if next.Rev == w.rec.Rev {
		return false
	}
	w.put(next)
	return true
}

// ahead is the fault of an edge that is given a step before it is recorded.
func (w *world) ahead(m *machine) bool {
	next := m.advance(w.rec, m.view(w))
	if !w.published || next.Active == w.rec.Active || w.edge.Active == next.Active {
		return false
	}
	w.edge = pair{Serving: authority.Serving{Active: next.Active, Chain: next.Chain}, version: w.version}
	return true
}

// uncoverable: its own record has still to say that it was left behind.
func (m *machine) uncoverable(w *world, h *host) bool {
	return h.exists() && w.published && h.covered && w.leaving(h) && !m.forgetful
}

func (m *machine) uncover(w *world, h *host) bool {
	if !m.uncoverable(w, h) {
		return false
	}
	h.covered = false
	h.note()
	return true
}

// coverable: its evidence is complete for the first time.
func (m *machine) coverable(w *world, h *host) bool {
	if !h.exists() || !w.published || h.covered || h.removed || h.evidence.seq == 0 || len(w.rec.Uncover) > 0 {
		return false
	}
	v := m.view(w)
	i := slices.IndexFunc(v.Hosts, func(seen authority.Host) bool { return seen.ID == h.name })
	return m.cover(w.rec, v.Hosts[i], v)
}

func (m *machine) coverNow(w *world, h *host) bool {
	if !m.coverable(w, h) {
		return false
	}
	h.covered = true
	h.note()
	return true
}

// note is what each write of the fleet's record keeps beside.
func (h *host) note() {
	if h.evidence.seq != 0 {
		h.known = max(h.known, h.evidence.gen)
	}
}

// offer is the record as it goes to hosts.
func (w *world) offer() offer {
	r := w.rec
	o := offer{
		rev: uint32(r.Rev), number: uint32(r.Number), gen: uint32(r.Generation), //nolint:gosec // Unix seconds at most
		bundle: rootsOf(r.Bundle), active: ca(r.Active), version: w.version, //nolint:gosec // fewer than 64
	}
	if r.Phase == authority.Staged && !r.Rollback {
		o.next = ca(r.Other) //nolint:gosec // fewer than 64
	}
	return o
}

// send puts the record on its way to a host; the oldest message is lost when too
// many are. Nothing is sent that the host was sent last.
func (m *machine) send(w *world, h *host) bool {
	if !h.stream || h.removed {
		return false
	}
	o := w.offer()
	if m.down == 0 {
		return (!h.leaves || !m.sameOffer(w, h.trusted, o)) && m.take(h, o)
	}
	for i := m.down - 1; i >= 0; i-- {
		if !h.down[i].none() {
			if m.sameOffer(w, h.down[i], o) {
				return false
			}
			break
		}
		if i == 0 && h.leaves && m.sameOffer(w, h.trusted, o) {
			return false
		}
	}
	for i := range m.down {
		if h.down[i].none() {
			h.down[i] = o
			return true
		}
	}
	copy(h.down[:m.down], h.down[1:m.down])
	h.down[m.down-1] = o
	return true
}

// receive takes a report if it is the first of its stream or newer than the last.
func (h *host) receive(r report) bool {
	if h.greeted && r.seq <= h.evidence.seq {
		return false
	}
	h.evidence, h.greeted, h.aged = r, true, false
	return true
}

// crash starts the server again: evidence is lost, the edge has the record before
// its first client, and nobody is gone before its time.
func (w *world) crash() {
	w.edge = pair{}
	w.publish(true)
	for i := range w.hosts {
		if h := &w.hosts[i]; h.exists() {
			h.forget()
			h.present = true
		}
	}
}

// forget is what the server loses of a host with its memory.
func (h *host) forget() {
	h.stream, h.greeted, h.aged = false, false, false
	h.evidence, h.up = report{}, [2]report{}
}

// operator lets an event of the operator happen.
func (m *machine) operator(w *world, event func(authority.View) (authority.Rotation, error)) bool {
	next, err := event(m.view(w))
	if err != nil || next.Rev == w.rec.Rev {
		return false
	}
	w.put(next)
	return true
}

// oldest is the CA that ends next, of those with which only links are signed.
func (w *world) oldest() ca {
	var found []authority.CAID
	for _, chain := range [2][]authority.Link{w.rec.Chain, w.rec.OtherChain} {
		for _, l := range chain {
			if !w.over(l) && l.By != w.rec.Active && l.By != w.rec.Other {
				found = append(found, l.By)
			}
		}
	}
	if len(found) == 0 {
		return 0
	}
	return ca(slices.Min(found)) //nolint:gosec // fewer than 64
}
