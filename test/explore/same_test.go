package explore

import (
	mathrand "math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// TestSameKeySameFuture: worlds that the walk takes for the same have the same
// future, one event far: what it leaves out of a key does not count.
func TestSameKeySameFuture(t *testing.T) {
	const worlds = 800 // of each scope
	compared := 0
	for _, s := range slices.Concat(quick, full) {
		if s.exact {
			continue // numbers count there
		}
		m := &machine{scope: s, code: realCode()}
		c := newCoder(false)
		first := map[key]world{}
		queue := []world{s.start()}
		for len(queue) > 0 && len(first) < worlds {
			w := queue[0]
			queue = queue[1:]
			for _, e := range s.events() {
				m.at(&w)
				after, ok := m.apply(e)
				if !ok {
					continue
				}
				next := *after
				k := c.key(&next, true)
				twin, met := first[k]
				if !met {
					first[k] = next
					queue = append(queue, next)
					continue
				}
				compared++
				if compared%7 != 0 { // every seventh is enough, and quick
					continue
				}
				if !slices.Equal(m.futures(&c, &twin), m.futures(&c, &next)) {
					t.Fatalf("%s: two worlds have one key and not one future:\n%+v\n%+v\n%v", s.name, twin, next, m.differences(&c, &twin, &next))
				}
			}
		}
	}
	if compared < worlds {
		t.Errorf("only %d pairs were compared", compared)
	}
}

// futures are the keys of all that can come next, and whether a promise breaks.
func (m *machine) futures(c *coder, w *world) []key {
	var out []key
	m.at(w)
	for _, e := range m.events() {
		after, ok := m.apply(e)
		if !ok {
			continue
		}
		k := c.key(after, true)
		if m.change(w, after) != "" {
			k[0]++
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b key) int { return slices.Compare(a[:], b[:]) })
	return out
}

// differences names the events that lead one of two worlds elsewhere.
func (m *machine) differences(c *coder, a, b *world) []string {
	var out []string
	for _, e := range m.events() {
		to := func(w *world) (k key) {
			m.at(w)
			if after, ok := m.apply(e); ok {
				k = c.key(after, true)
			}
			return k
		}
		if to(a) != to(b) {
			out = append(out, e.text(a))
		}
	}
	return out
}

// TestNothingIsNothing: an event that did not happen leaves the world as it was.
func TestNothingIsNothing(t *testing.T) {
	refused := 0
	for _, s := range quick {
		m := &machine{scope: s, code: realCode()}
		w := s.start()
		for range 60 {
			var next *world
			for _, e := range s.events() {
				m.at(&w)
				after, ok := m.apply(e)
				switch {
				case ok && mathrand.IntN(4) == 0:
					chosen := *after
					next = &chosen
				case !ok && after != nil:
					refused++
					if !reflect.DeepEqual(*after, w) {
						t.Fatalf("%s: %s did not happen and changed\n%+v into\n%+v", s.name, e.text(&w), w, *after)
					}
				}
			}
			if next != nil {
				w = *next
			}
		}
	}
	if refused == 0 {
		t.Error("everything happened always")
	}
}
