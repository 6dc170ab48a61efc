package explore

import (
	"fmt"
	"slices"

	"github.com/trustcast/trustcast/server/authority"
)

// The promises about a world as it is, in their own words: they look at disks, links
// and what the edge presents, never at evidence. Two are not here, because worlds have
// nothing that could break them: that keys are there as long as they are needed (of
// S3 only what the record says is checked), and that removed hosts are sent nothing.

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

// pulls is S1. Nobody can help a CA that is over itself.
func (m *machine) pulls(w *world) string {
	issuer := ca(w.edge.Active) //nolint:gosec // fewer than 64
	if issuer == 0 || w.astray || w.spent(issuer) {
		return ""
	}
	usable := m.usable(w)
	for i := range w.hosts {
		h := &w.hosts[i]
		if !w.promised(h) || !h.present || w.skipped(h) || h.drifted || h.broken {
			continue
		}
		if !verifies(h.disk, issuer, w.edge.Chain, usable) {
			return fmt.Sprintf("S1: %s has CAs %v on disk and does not verify what is served: CA %d with %v", h.name, h.disk, issuer, w.edge.Chain)
		}
	}
	return ""
}

// valid says which links a client can use; nil: all.
func (w *world) valid() func(authority.Link) bool {
	if w.ended == 0 && w.worn < 3 && w.rec.Adopted == 0 {
		return nil
	}
	return func(l authority.Link) bool { return !w.over(l) && !w.forged(l) }
}

// usable are the valid links, and those over that the server is about to drop: no
// server can drop them before they are over, and it leaves nobody behind silently.
func (m *machine) usable(w *world) func(authority.Link) bool {
	valid := w.valid()
	if valid == nil {
		return nil
	}
	has := func(r *authority.Rotation, l authority.Link) bool {
		return slices.Contains(r.Chain, l) || slices.Contains(r.OtherChain, l)
	}
	next := authority.Rotation{} // while writes are under way, of which none is lost
	if w.published && !m.writing(w) {
		next = m.advance(w.rec, m.view(w))
	}
	return func(l authority.Link) bool { return valid(l) || !w.forged(l) && has(&w.rec, l) && !has(&next, l) }
}

// writing: hosts' own records have still to be written before the next step.
func (m *machine) writing(w *world) bool {
	if len(w.rec.Uncover) > 0 {
		return true
	}
	for i := range w.hosts {
		if h := &w.hosts[i]; m.uncoverable(w, h) || m.coverable(w, h) {
			return true
		}
	}
	return false
}

// oneBundle is the second half of S4: one generation, one bundle, wherever it is.
func (w *world) oneBundle() string {
	if w.astray {
		return ""
	}
	is := func(o *offer) bool {
		return o.none() || uint64(o.gen) != w.rec.Generation || o.bundle == rootsOf(w.rec.Bundle)
	}
	for i := range w.hosts {
		h := &w.hosts[i]
		if !is(&h.trusted) || !is(&h.down[0]) || !is(&h.down[1]) {
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
