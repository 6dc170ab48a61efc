package explore

import (
	"fmt"
	"strings"

	"github.com/trustcast/trustcast/server/authority"
)

// event is one thing that happens: to host, if its kind has one.
type event struct{ kind, host uint8 }

// kind of an event. It changes the world and says whether anything happened; when
// nothing did, the world is as it was.
type kind struct {
	line string
	// perHost: it happens to one host.
	perHost bool
	happen  func(m *machine, w *world, h *host) bool
}

// spend takes one from a budget.
func spend(left *uint8) bool {
	if *left == 0 {
		return false
	}
	*left--
	return true
}

func planned(w *world) bool { return !w.rec.Restored }

var kinds = []kind{
	// The server.
	{"step", false, func(m *machine, w *world, _ *host) bool { return m.step(w) }},
	{"cover", true, func(m *machine, w *world, h *host) bool { return m.coverNow(w, h) }},
	{"uncover", true, func(m *machine, w *world, h *host) bool { return m.uncover(w, h) }},
	{"half-publish", false, func(_ *machine, w *world, _ *host) bool {
		if w.published || w.rec.Phase != authority.Staged || w.rec.Rollback || w.rec.Restored || !spend(&w.left.nextRefused) {
			return false
		}
		w.publish(false)
		return true
	}},
	{"crash", false, func(_ *machine, w *world, _ *host) bool {
		if !spend(&w.left.crashes) {
			return false
		}
		w.crash()
		return true
	}},
	{"leaf", false, func(_ *machine, w *world, _ *host) bool {
		if !w.published || !spend(&w.left.renewals) {
			return false
		}
		w.version++
		w.put(w.rec.RenewLeaf())
		return true
	}},
	// The operator.
	{"rotate", false, func(m *machine, w *world, _ *host) bool {
		return planned(w) && w.rec.Phase == authority.Idle && w.left.rotations > 0 && m.operator(w, func(v authority.View) (authority.Rotation, error) { return w.rec.Rotate(v, patience) }) && spend(&w.left.rotations)
	}},
	{"replace", false, func(m *machine, w *world, _ *host) bool {
		return planned(w) && w.rec.Phase == authority.Staged && w.left.rotations > 0 && m.operator(w, func(v authority.View) (authority.Rotation, error) { return w.rec.Replace(v, patience) }) && spend(&w.left.rotations)
	}},
	{"compromise", false, func(m *machine, w *world, _ *host) bool {
		return planned(w) && w.left.compromises > 0 && m.operator(w, func(v authority.View) (authority.Rotation, error) { return w.rec.Compromise(v, patience) }) && spend(&w.left.compromises)
	}},
	{"rollback", false, func(m *machine, w *world, _ *host) bool {
		return w.rec.Phase != authority.Idle && w.left.rollbacks > 0 && m.operator(w, func(v authority.View) (authority.Rotation, error) { return m.takeBack(w.rec, v) }) && spend(&w.left.rollbacks)
	}},
	{"skip", true, func(m *machine, w *world, h *host) bool {
		return !h.removed && (w.rec.Phase != authority.Idle || w.rec.Restored) && w.left.skips > 0 &&
			m.operator(w, func(authority.View) (authority.Rotation, error) { return w.rec.Skip(h.name) }) && spend(&w.left.skips)
	}},
	{"servenow", false, func(m *machine, w *world, _ *host) bool {
		return w.rec.Restored && w.left.hurries > 0 && m.operator(w, w.rec.ServeNow) && spend(&w.left.hurries)
	}},
	{"remove", true, func(_ *machine, w *world, h *host) bool {
		if h.removed || !spend(&w.left.removals) {
			return false
		}
		h.removed = true
		h.hangUp()
		return true
	}},
	{"keep", false, func(_ *machine, w *world, _ *host) bool {
		if w.backup != nil || !spend(&w.left.backups) {
			return false
		}
		w.keep()
		return true
	}},
	{"restore", false, func(m *machine, w *world, _ *host) bool {
		if w.backup == nil || w.astray || !spend(&w.left.restores) {
			return false
		}
		m.restart(w, false)
		return true
	}},
	{"copy", false, func(m *machine, w *world, _ *host) bool {
		if w.backup == nil || !spend(&w.left.copies) {
			return false
		}
		m.restart(w, true)
		return true
	}},
	// Messages.
	{"send", true, func(m *machine, w *world, h *host) bool { return m.send(w, h) }},
	{"deliver", true, func(m *machine, _ *world, h *host) bool { return m.deliver(h, 0, false) }},
	{"overtake", true, func(m *machine, _ *world, h *host) bool { return m.deliver(h, 1, false) }},
	{"deliver-twice", true, func(m *machine, w *world, h *host) bool {
		return w.left.repeats > 0 && m.deliver(h, 0, true) && spend(&w.left.repeats)
	}},
	{"lose", true, func(_ *machine, w *world, h *host) bool {
		if h.down[0].none() || !spend(&w.left.losses) {
			return false
		}
		h.down[0], h.down[1] = h.down[1], offer{}
		return true
	}},
	{"report", true, func(m *machine, w *world, h *host) bool { return m.report(w, h) }},
	{"hear", true, func(_ *machine, _ *world, h *host) bool { return h.hear(0, false) }},
	{"hear-overtaken", true, func(_ *machine, _ *world, h *host) bool { return h.hear(1, false) }},
	{"hear-twice", true, func(_ *machine, w *world, h *host) bool {
		return w.left.repeats > 0 && h.hear(0, true) && spend(&w.left.repeats)
	}},
	{"lose-report", true, func(_ *machine, w *world, h *host) bool {
		if h.up[0].seq == 0 || !spend(&w.left.losses) {
			return false
		}
		h.up[0], h.up[1] = h.up[1], report{}
		return true
	}},
	// Hosts.
	{"install", true, func(m *machine, _ *world, h *host) bool { return m.install(h) }},
	{"stop", true, func(_ *machine, w *world, h *host) bool {
		if !spend(&w.left.agentCrashes) {
			return false
		}
		h.stop()
		return true
	}},
	{"hang-up", true, func(_ *machine, w *world, h *host) bool {
		if !h.stream || !spend(&w.left.absences) {
			return false
		}
		h.hangUp()
		return true
	}},
	{"gone", true, func(_ *machine, _ *world, h *host) bool {
		if h.stream || !h.present || h.removed {
			return false
		}
		h.present = false
		return true
	}},
	{"back", true, func(_ *machine, _ *world, h *host) bool {
		if h.stream || h.removed {
			return false
		}
		h.stream, h.present, h.greeted = true, true, false
		return true
	}},
	{"enrol", true, func(_ *machine, w *world, h *host) bool {
		i := strings.IndexByte("123", h.name[len(h.name)-1])
		if i < 0 || !spend(&w.left.enrolments) {
			return false
		}
		h.enrol(names[maxHosts+i])
		return true
	}},
	{"drift", true, func(_ *machine, w *world, h *host) bool {
		if h.disk.a == 0 || !spend(&w.left.drifts) {
			return false
		}
		h.disk, h.drifted = roots{}, true
		return true
	}},
	{"break", true, func(_ *machine, w *world, h *host) bool {
		return w.left.drifts > 0 && toggle(&h.broken, true) && spend(&w.left.drifts)
	}},
	{"tidy", true, func(_ *machine, _ *world, h *host) bool { return toggle(&h.broken, false) }},
	{"refuse", true, func(_ *machine, w *world, h *host) bool {
		return w.left.refusals > 0 && toggle(&h.refuses, true) && spend(&w.left.refusals)
	}},
	{"mend", true, func(_ *machine, _ *world, h *host) bool { return toggle(&h.refuses, false) }},
	// Time.
	{"late", false, func(_ *machine, w *world, _ *host) bool {
		return w.rec.Phase != authority.Idle && toggle(&w.late, true)
	}},
	{"age", true, func(_ *machine, w *world, h *host) bool {
		return h.evidence.seq != 0 && w.left.agings > 0 && toggle(&h.aged, true) && spend(&w.left.agings)
	}},
	{"wear", false, func(_ *machine, w *world, _ *host) bool {
		if w.left.ends == 0 {
			return false
		}
		if w.pressed != 0 && w.rec.Active != authority.CAID(w.pressed) {
			w.pressed, w.worn = 0, 0
		}
		if w.worn == 3 || !spend(&w.left.ends) {
			return false
		}
		w.pressed = ca(w.rec.Active) //nolint:gosec // fewer than 64
		w.worn++
		return true
	}},
	{"end", false, func(_ *machine, w *world, _ *host) bool {
		c := w.oldest()
		if c == 0 || !spend(&w.left.ends) {
			return false
		}
		w.ended = c
		return true
	}},
}

func toggle(bit *bool, to bool) bool {
	changed := *bit != to
	*bit = to
	return changed
}

// deliver hands an offer on its way to the agent; keep: it arrives once more.
func (m *machine) deliver(h *host, i int, keep bool) bool {
	o := h.down[i]
	if o.none() {
		return false
	}
	if !keep {
		if i == 0 {
			h.down[0] = h.down[1]
		}
		h.down[1] = offer{}
	}
	took := m.take(h, o)
	return took || !keep
}

// hear takes a report on its way; keep: it arrives once more.
func (h *host) hear(i int, keep bool) bool {
	r := h.up[i]
	if r.seq == 0 {
		return false
	}
	if !keep {
		if i == 0 {
			h.up[0] = h.up[1]
		}
		h.up[1] = report{}
	}
	took := h.receive(r)
	return took || !keep
}

// at chooses the world to which events happen; it must not change meanwhile.
func (m *machine) at(w *world) { m.before, m.changed = w, true }

// apply lets an event happen to a copy of the chosen world, which is valid until
// the next call; ok: something did.
func (m *machine) apply(e event) (after *world, ok bool) {
	k := &kinds[e.kind]
	if m.changed {
		m.after, m.changed = *m.before, false
	}
	var h *host
	if k.perHost {
		if h = &m.after.hosts[e.host]; !h.exists() {
			return nil, false
		}
	}
	m.changed = k.happen(m, &m.after, h)
	return &m.after, m.changed
}

// events are those that a scope knows.
func (s scope) events() []event {
	var out []event
	for i, k := range kinds {
		n := 1
		if k.perHost {
			n = s.hosts
		}
		for h := range n {
			out = append(out, event{uint8(i), uint8(h)}) //nolint:gosec // a few dozen kinds, three hosts
		}
	}
	return out
}

// text is an event as a line.
func (e event) text(w *world) string {
	k := kinds[e.kind]
	if !k.perHost {
		return k.line
	}
	return fmt.Sprintf("%s %s", k.line, w.hosts[e.host].name)
}
