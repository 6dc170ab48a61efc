package explore

import (
	"fmt"
	"slices"

	"github.com/trustcast/trustcast/server/authority"
)

// The promises about steps. What was to be waited for is judged by the machines, and
// by what they were like when they spoke; who may be left behind also by what the
// server knows, for it can do no better.

// change returns the first promise that a step breaks, or "".
func (m *machine) change(before, after *world) string {
	for i := range after.hosts {
		b, a := &before.hosts[i], &after.hosts[i]
		if b.name == a.name && a.trusted.gen < b.trusted.gen {
			return fmt.Sprintf("S4: the generation of %s fell from %d to %d", a.name, b.trusted.gen, a.trusted.gen)
		}
	}
	if restarted(before, after) {
		return ""
	}
	if broken := samePair(before, after); broken != "" {
		return broken
	}
	if before.rec.Rev == after.rec.Rev {
		return ""
	}
	return m.recorded(before, after)
}

// restarted: the record was replaced by a backup's.
func restarted(before, after *world) bool {
	return before.left.restores != after.left.restores || before.left.copies != after.left.copies
}

// samePair is S6: the edge presents the pair of the record, or of the one before.
// Links that are over make no other pair: they are of use to nobody, and an operator
// may take a rotation back before the edge has dropped them.
func samePair(before, after *world) string {
	if after.edge.Active == 0 || after.rec.Restored || after.serves(&after.rec) {
		return ""
	}
	edgeMoved := after.edge.Active != before.edge.Active || !slices.Equal(after.edge.Chain, before.edge.Chain)
	pairMoved := after.rec.Active != before.rec.Active || !slices.Equal(after.rec.Chain, before.rec.Chain)
	if !edgeMoved && (!pairMoved || after.edge.Active == before.rec.Active && slices.Equal(after.inUse(after.edge.Chain), after.inUse(before.rec.Chain))) {
		return ""
	}
	return fmt.Sprintf("S6: the edge serves CA %d with %v, the record says CA %d with %v", after.edge.Active, after.edge.Chain, after.rec.Active, after.rec.Chain)
}

// inUse is a chain up to its first link that is over.
func (w *world) inUse(chain []authority.Link) []authority.Link {
	if i := slices.IndexFunc(chain, w.over); i >= 0 {
		return chain[:i]
	}
	return chain
}

// serves: the edge presents the pair of a record.
func (w *world) serves(r *authority.Rotation) bool {
	return w.edge.Active == r.Active && slices.Equal(w.edge.Chain, r.Chain)
}

// recorded checks the step from one record to the next.
func (m *machine) recorded(before, after *world) string {
	b, a := &before.rec, &after.rec
	fresh := func(c authority.CAID) bool { return c == 0 || c > b.LastCA || c == b.Active || c == b.Other }
	switches := b.Phase == authority.Staged && a.Phase == authority.Switched
	retires := b.Phase == authority.Switched && a.Phase == authority.Retiring
	switch {
	case a.Rev < b.Rev:
		return "S4: the revision fell"
	case a.Generation < b.Generation:
		return "S4: the generation fell"
	case a.Generation == b.Generation && !slices.Equal(a.Bundle, b.Bundle):
		return "S4: the bundle changed under one generation"
	case !fresh(a.Active) || !fresh(a.Other):
		return "S3: a CA is used whose key is destroyed"
	case b.Phase == authority.Retiring && a.Phase != authority.Retiring && a.Phase != authority.Idle && (a.Phase != authority.Staged || !a.Compromised):
		return "S7: a way leads back from retiring"
	case b.Compromised && b.Phase == authority.Switched && a.Active != b.Active:
		return "S7: a stolen CA serves again"
	}
	hurried := switches && b.Compromised || (switches || retires) && before.forced()
	opens := b.Restored && !a.Restored
	if broken := before.leftBehind(after, hurried || opens); broken != "" {
		return broken
	}
	switch {
	case opens && before.left.hurries == after.left.hurries:
		return before.waitedFor(after, "S1: opened")
	case switches && !hurried:
		return before.waitedFor(after, "S2: switched")
	case retires && !hurried && !b.Compromised:
		return before.retired(after)
	}
	return ""
}

// forced: the active CA is about to end. With days left, hosts of which the server
// has not heard yet are a reason to wait.
func (w *world) forced() bool {
	if w.rec.Active <= authority.CAID(w.ended) {
		return true
	}
	return w.rec.Active == authority.CAID(w.pressed) && (w.worn == 3 || w.late && (w.worn == 2 || w.worn == 1 && w.heard()))
}

// heard: the server has evidence of all hosts that it waits for.
func (w *world) heard() bool {
	return !slices.ContainsFunc(w.hosts[:], func(h host) bool { return w.waits(&h) && h.evidence.seq == 0 })
}

// waits: the next step that nobody hurries does not happen without this host. After
// a restore that is each one present, for the backup may be older than its coverage.
func (w *world) waits(h *host) bool {
	if w.rec.Restored {
		return h.exists() && !h.removed && h.present && !w.skipped(h)
	}
	return w.promised(h) && !w.skipped(h) && (h.present || !w.late)
}

// waitedFor is S2 at the switch, S7 when the old CA is retired, S1 when a restored
// server opens: whoever had to be waited for has the active CA itself, and the
// newest that it said was fresh, and said while nothing was wrong with it.
func (w *world) waitedFor(after *world, step string) string {
	active := ca(after.rec.Active) //nolint:gosec // fewer than 64
	for i := range w.hosts {
		h := &w.hosts[i]
		if !w.waits(h) {
			continue
		}
		switch {
		case !h.disk.has(active) && !h.drifted:
			return fmt.Sprintf("%s although %s has CAs %v on disk", step, h.name, h.disk)
		case h.evidence.seq == 0:
			return fmt.Sprintf("%s although %s has not been heard", step, h.name)
		case !h.evidence.disk.has(active):
			return fmt.Sprintf("%s although %s said that it has CAs %v on disk", step, h.name, h.evidence.disk)
		case h.aged:
			return fmt.Sprintf("%s although what %s said is old", step, h.name)
		case h.evidence.broken:
			return fmt.Sprintf("%s although nothing is in effect on %s", step, h.name)
		case h.evidence.refuses && !w.rec.Restored:
			return fmt.Sprintf("%s although %s refuses what it is shown", step, h.name)
		}
	}
	return ""
}

// retired is S7.
func (w *world) retired(after *world) string {
	if broken := w.waitedFor(after, "S7: retired"); broken != "" {
		return broken
	}
	for i := range w.hosts {
		if h := &w.hosts[i]; w.waits(h) && uint64(h.shown) < w.rec.SwitchedRev {
			return fmt.Sprintf("S7: retired although %s has not seen the switch", h.name)
		}
	}
	if !w.serves(&w.rec) {
		return "S7: retired before the edge has settled"
	}
	return ""
}

// leftBehind: a step takes its promise from nobody without need. Needed it is in a
// hurry or when a restored server opens, from hosts that lack something; and else
// from hosts too old for the predecessors that are left.
func (w *world) leftBehind(after *world, hurried bool) string {
	reach := w.reach(after)
	for i := range w.hosts {
		h := &w.hosts[i]
		if !w.promised(h) || !after.leaving(h) {
			continue
		}
		switch old := h.holds() < reach; {
		case !old && !hurried:
			return fmt.Sprintf("S1: %s is left behind, of which generation %d is known and %d is enough", h.name, h.holds(), reach)
		case !old && w.ready(h):
			return fmt.Sprintf("S1: %s is left behind although it has shown everything", h.name)
		}
	}
	return ""
}

// reach is the oldest generation that must do after a step: as before, unless links
// are over.
func (w *world) reach(after *world) uint64 {
	chain, reach := w.rec.Chain, w.rec.Reach
	if after.rec.Active != w.rec.Active {
		chain, reach = w.rec.OtherChain, w.rec.OtherReach
	}
	for _, l := range chain {
		if w.over(l) {
			reach = max(reach, l.Generation)
		}
	}
	return reach
}

// holds is the newest generation that the server knows a host to have had.
func (h *host) holds() uint64 {
	if h.evidence.seq != 0 {
		return uint64(max(h.known, h.evidence.gen))
	}
	return uint64(h.known)
}

// ready: a host is here and lacks nothing for the next step.
func (w *world) ready(h *host) bool {
	e, r := &h.evidence, &w.rec
	since := w.since(e.rev, e.number, e.gen)
	switch {
	case !h.present || w.skipped(h) || h.aged || e.seq == 0 || e.broken || e.refuses:
		return false
	case !since.current || e.disk != rootsOf(r.Bundle) || e.disk != e.solo && r.Phase == authority.Staged:
		return false
	case r.Restored || !e.solo.has(ca(r.Active)): //nolint:gosec // fewer than 64
		return r.Restored && e.solo.has(ca(r.Active)) //nolint:gosec // fewer than 64
	case r.Phase == authority.Staged:
		return e.probe == accepted
	default:
		return since.switched && e.live == accepted
	}
}
