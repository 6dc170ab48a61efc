package explore

import (
	"fmt"
	"slices"

	"github.com/trustcast/trustcast/server/authority"
)

// The invariants of a rotation, in their own words: they look at disks, links and
// what the edge presents, never at evidence.

// state returns the first promise that a world breaks by being as it is, or "".
func (m *machine) state(w *world) string {
	r := &w.rec
	switch {
	case !slices.Contains(r.Bundle, r.Active):
		return "S3: the bundle does not have the active CA"
	case r.Other != 0 && !slices.Contains(r.Bundle, r.Other):
		return "S3: the bundle does not have the other CA"
	case r.Other != 0 && (r.Phase == authority.Idle || r.Phase == authority.Retiring):
		return "S3: a CA beside the active one is kept although it is over"
	case len(r.Bundle) > 2 || len(r.Bundle) == 2 && r.Other == 0 && !r.Compromised:
		return "S3: the bundle has a CA whose key is gone"
	case w.edge.Active != 0 && !slices.Contains(r.Bundle, w.edge.Active):
		return "S5: the bundle does not have the issuer of what is served"
	}
	if broken := m.pulls(w); broken != "" {
		return broken
	}
	if broken := w.oneBundle(); broken != "" {
		return broken
	}
	return m.deaf(w)
}

// pulls is S1. A link that ended is alive here until the record has dropped it: no
// server can drop it before. Neither can anybody help a CA that is over itself.
func (m *machine) pulls(w *world) string {
	issuer := ca(w.edge.Active) //nolint:gosec // fewer than 64
	if issuer == 0 || w.astray || w.spent(issuer) {
		return ""
	}
	for i := range w.hosts {
		h := &w.hosts[i]
		if !w.promised(h) || !h.present || w.skipped(h) || h.drifted || h.broken {
			continue
		}
		if !verifies(h.disk, issuer, w.edge.Chain, w.usable()) {
			return fmt.Sprintf("S1: %s has CAs %v on disk and does not verify what is served: CA %d with %v", h.name, h.disk, issuer, w.edge.Chain)
		}
	}
	return ""
}

func (w *world) usable() func(authority.Link) bool {
	if w.ended == 0 && w.worn < 3 {
		return nil
	}
	return func(l authority.Link) bool {
		return !w.over(l) || slices.Contains(w.rec.Chain, l) || slices.Contains(w.rec.OtherChain, l)
	}
}

// oneBundle is the second half of S4: one generation, one bundle, wherever it is.
func (w *world) oneBundle() string {
	if w.astray {
		return ""
	}
	is := func(gen uint32, b roots) bool { return uint64(gen) != w.rec.Generation || b == rootsOf(w.rec.Bundle) }
	for i := range w.hosts {
		h := &w.hosts[i]
		if !is(h.trusted.gen, h.trusted.bundle) || !is(h.down[0].gen, h.down[0].bundle) || !is(h.down[1].gen, h.down[1].bundle) {
			return fmt.Sprintf("S4: %s knows another bundle under generation %d", h.name, w.rec.Generation)
		}
	}
	return ""
}

// deaf is S8: the server does the same whether it sees removed hosts or not.
func (m *machine) deaf(w *world) string {
	if !slices.ContainsFunc(w.hosts[:], func(h host) bool { return h.removed }) || !w.published {
		return ""
	}
	with := m.advance(w.rec, m.view(w))
	v := m.view(w)
	v.Hosts = slices.DeleteFunc(slices.Clone(v.Hosts), func(h authority.Host) bool {
		return slices.ContainsFunc(w.hosts[:], func(mine host) bool { return mine.removed && mine.name == h.ID })
	})
	without := m.advance(w.rec, v)
	if with.Rev != without.Rev || with.Phase != without.Phase || with.Generation != without.Generation || !slices.Equal(with.Uncover, without.Uncover) {
		return "S8: a removed host decides what happens"
	}
	return ""
}

// change returns the first promise that a step breaks, or "".
func (m *machine) change(before, after *world) string {
	for i := range after.hosts {
		b, a := &before.hosts[i], &after.hosts[i]
		if b.name == a.name && a.trusted.gen < b.trusted.gen {
			return fmt.Sprintf("S4: the generation of %s fell from %d to %d", a.name, b.trusted.gen, a.trusted.gen)
		}
		if b.name == a.name && a.covered && !b.covered && a.removed && !restarted(before, after) {
			return "S8: " + a.name + " was removed and is covered"
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
func samePair(before, after *world) string {
	if after.edge.Active == 0 || after.rec.Restored || after.serves(&after.rec) {
		return ""
	}
	edgeMoved := after.edge.Active != before.edge.Active || !slices.Equal(after.edge.Chain, before.edge.Chain)
	pairMoved := after.rec.Active != before.rec.Active || !slices.Equal(after.rec.Chain, before.rec.Chain)
	if !edgeMoved && (!pairMoved || after.serves(&before.rec)) {
		return ""
	}
	return fmt.Sprintf("S6: the edge serves CA %d with %v, the record says CA %d with %v", after.edge.Active, after.edge.Chain, after.rec.Active, after.rec.Chain)
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
	case (switches || retires) && !b.Compromised && !before.forced():
		return m.waitedFor(before, after, retires)
	}
	return ""
}

// forced: the active CA is about to end.
func (w *world) forced() bool {
	if w.rec.Active <= authority.CAID(w.ended) {
		return true
	}
	return w.rec.Active == authority.CAID(w.pressed) && (w.worn == 3 || w.worn > 0 && w.late)
}

// waitedFor is S2 at the switch, S7 when the old CA is retired: whoever had to be
// waited for has the active CA itself, and has seen what is served.
func (m *machine) waitedFor(before, after *world, retires bool) string {
	step := "S2: switched"
	if retires {
		step = "S7: retired"
	}
	for i := range before.hosts {
		h := &before.hosts[i]
		if !before.promised(h) || before.skipped(h) || !h.present && before.late || h.drifted || h.broken {
			continue
		}
		switch {
		case !h.disk.has(ca(after.rec.Active)): //nolint:gosec // fewer than 64
			return fmt.Sprintf("%s although %s has CAs %v on disk", step, h.name, h.disk)
		case h.refuses && retires && h.evidence.seq != 0 && h.evidence.live == refused:
			return fmt.Sprintf("%s although %s refuses what is served", step, h.name)
		case retires && uint64(h.shown) < before.rec.SwitchedRev:
			return fmt.Sprintf("%s although %s has not seen the switch", step, h.name)
		}
	}
	if retires && !before.serves(&before.rec) {
		return "S7: retired before the edge has settled"
	}
	return ""
}
