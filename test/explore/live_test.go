package explore

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trustcast/trustcast/server/authority"
)

// mostRounds bounds a completion; the longest, after a rollback, takes about ten.
const mostRounds = 40

// lives is L1 and L2: from this world, the server and honest hosts alone get to
// idle; or status names who is waited for, and passing over those helps, and so
// does taking the rotation back. stay: hosts without a stream never come back.
func (m *machine) lives(w world, stay bool, known *keys, c *coder) string {
	var path []key
	for range mostRounds {
		again := m.round(&w, stay)
		if w.rec.Phase == authority.Idle && !w.rec.Restored && w.published && len(w.rec.Uncover) == 0 {
			if slices.ContainsFunc(w.edge.Chain, w.over) {
				return fmt.Sprintf("L1: idle, and for ever serves a link that is over: %v", w.edge.Chain)
			}
			known.add(path)
			return ""
		}
		if again {
			k := c.key(&w, false)
			if stay {
				k[0]++
			}
			if known.has(k) {
				known.add(path)
				return ""
			}
			path = append(path, k)
			continue
		}
		if broken := m.explained(w, stay); broken != "" {
			return broken
		}
		known.add(path)
		return ""
	}
	return "L1: it goes round in circles"
}

// round lets the server and honest hosts do all that they can, and then some time
// pass; again: something happened.
func (m *machine) round(w *world, stay bool) (again bool) {
	for range mostRounds {
		moved := m.step(w)
		for i := range w.hosts {
			moved = m.uncover(w, &w.hosts[i]) || m.coverNow(w, &w.hosts[i]) || moved
		}
		if !moved {
			break
		}
		again = true
	}
	for i := range w.hosts {
		h := &w.hosts[i]
		if !h.exists() || h.removed {
			continue
		}
		h.down, h.up = [2]offer{}, [2]report{} // lost, and overtaken by what follows
		if !h.stream {
			if stay {
				again = toggle(&h.present, false) || again
				continue
			}
			h.stream, h.present, h.greeted = true, true, false
			again = true
		}
		again = m.turn(w, h) || again
	}
	if !again && w.rec.Phase != authority.Idle {
		again = toggle(&w.late, true)
	}
	return again
}

// turn is a whole turn of an agent with the newest offer, heard by the server.
func (m *machine) turn(w *world, h *host) bool {
	took := m.take(h, w.offer())
	installed := m.install(h)
	r := m.prove(w, h)
	said := h.evidence
	said.seq = 0
	if h.greeted && !h.aged && said == r {
		return took || installed
	}
	h.seq++
	r.seq = h.seq
	h.receive(r)
	return true
}

// explained is L2, for a world in which nothing happens any more.
func (m *machine) explained(w world, stay bool) string {
	v := m.view(&w)
	waits := m.waiting(w.rec, v)
	if w.astray {
		if w.rec.Frozen(v) == "" && len(waits) == 0 {
			return "L2: an old copy stands still and says nothing"
		}
		return ""
	}
	if len(waits) == 0 {
		return "L2: " + string(w.rec.Phase) + " for ever, and nobody is named"
	}
	if back, err := m.takeBack(w.rec, v); err == nil {
		undone := w
		undone.put(back)
		if !m.finishes(&undone, stay) {
			return "L2: taking it back does not help: " + waitsText(m.waiting(undone.rec, m.view(&undone)))
		}
		if waits[0].Host == "edge" { // it refuses the future chain, and no host can help
			return ""
		}
	}
	for range mostRounds {
		for _, wait := range waits {
			next, err := w.rec.Skip(wait.Host)
			if err != nil || !slices.ContainsFunc(w.hosts[:], func(h host) bool { return h.name == wait.Host }) {
				return "L2: nobody can pass over " + waitsText(waits)
			}
			w.put(next)
		}
		if m.finishes(&w, stay) {
			return ""
		}
		if waits = m.waiting(w.rec, m.view(&w)); len(waits) == 0 {
			return "L2: " + string(w.rec.Phase) + " for ever after a skip, and nobody is named"
		}
	}
	return "L2: passing over does not help: " + waitsText(waits)
}

// finishes: it comes to idle without anybody's help.
func (m *machine) finishes(w *world, stay bool) bool {
	for range mostRounds {
		if w.rec.Phase == authority.Idle && !w.rec.Restored && w.published {
			return true
		}
		if !m.round(w, stay) {
			return false
		}
	}
	return false
}

func waitsText(waits []authority.Wait) string {
	var s []string
	for _, w := range waits {
		s = append(s, w.Host+" "+w.Reason)
	}
	return strings.Join(s, "; ")
}
