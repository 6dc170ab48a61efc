package explore

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// shards of a set of keys, so that workers seldom wait for each other.
const shards = 64

// keys is a set that workers share.
type keys struct {
	shards [shards]struct {
		sync.Mutex
		set map[key]struct{}
	}
}

func newKeys() *keys {
	k := &keys{}
	for i := range k.shards {
		k.shards[i].set = map[key]struct{}{}
	}
	return k
}

// insert says whether a key is new.
func (k *keys) insert(x key) bool {
	s := &k.shards[x[1]%shards]
	s.Lock()
	defer s.Unlock()
	before := len(s.set)
	s.set[x] = struct{}{}
	return len(s.set) > before
}

func (k *keys) has(x key) bool {
	s := &k.shards[x[1]%shards]
	s.Lock()
	defer s.Unlock()
	_, ok := s.set[x]
	return ok
}

func (k *keys) add(path []key) {
	for _, x := range path {
		k.insert(x)
	}
}

// origin is how a world was reached first.
type origin struct {
	parent uint32
	event  event
}

// reached is a world of the newest level, and its place among the origins.
type reached struct {
	world
	at uint32
}

// walk is one exploration, breadth-first.
type walk struct {
	scope
	code
	limit   uint32
	events  []event
	seen    *keys
	good    *keys // worlds that are known to come to idle
	coder   coder // to copy
	origins []origin
	states  atomic.Uint32
	moves   atomic.Uint64
	// happened says which kinds of events did.
	happened [64]atomic.Bool

	mu     sync.Mutex
	broken string
	last   uint32 // the place of the world that breaks a promise
}

// result of a walk.
type result struct {
	states, depth int
	moves         uint64
	closed        bool
	happened      map[string]bool // by the kind's line
	broken        string
	way           []event
	took          time.Duration
}

func explore(s scope, c code, limit int) result {
	began := time.Now()
	k := &walk{scope: s, code: c, limit: uint32(limit), events: s.events(), seen: newKeys(), good: newKeys(), coder: newCoder(s.exact)} //nolint:gosec // a few million
	k.origins = make([]origin, 0, limit+1)
	first := s.start()
	own := k.coder
	k.seen.insert(own.key(&first, true))
	k.origins = append(k.origins, origin{parent: math.MaxUint32})
	k.states.Store(1)
	level := []reached{{world: first}}
	depth := 0
	for len(level) > 0 && k.broken == "" && k.states.Load() < k.limit {
		level = k.expand(level)
		depth++
	}
	res := result{states: int(k.states.Load()), depth: depth, moves: k.moves.Load(), closed: len(level) == 0 && k.broken == "", broken: k.broken, took: time.Since(began), happened: map[string]bool{}}
	for i, kind := range kinds {
		res.happened[kind.line] = k.happened[i].Load()
	}
	for at := k.last; k.broken != "" && k.origins[at].parent != math.MaxUint32; at = k.origins[at].parent {
		res.way = append([]event{k.origins[at].event}, res.way...)
	}
	return res
}

// expand does everything that can happen next in each world of a level, with one
// worker a core. It returns the next level.
func (k *walk) expand(level []reached) []reached {
	var next []reached
	var group sync.WaitGroup
	var taken atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			m := &machine{scope: k.scope, code: k.code}
			own := k.coder
			var mine []reached
			for {
				const chunk = 64
				from := int(taken.Add(chunk)) - chunk
				if from >= len(level) {
					break
				}
				for i := from; i < min(from+chunk, len(level)); i++ {
					mine = k.successors(m, &own, &level[i], mine)
				}
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			next = append(next, mine...)
		})
	}
	group.Wait()
	return next
}

func (k *walk) successors(m *machine, c *coder, from *reached, out []reached) []reached {
	m.at(&from.world)
	for _, e := range k.events {
		after, ok := m.apply(e)
		if !ok {
			continue
		}
		k.moves.Add(1)
		if !k.happened[e.kind].Load() {
			k.happened[e.kind].Store(true)
		}
		broken := m.change(&from.world, after)
		isNew := k.seen.insert(c.key(after, true))
		if broken == "" && !isNew || k.states.Load() >= k.limit {
			continue
		}
		at, ok := k.place(origin{parent: from.at, event: e})
		if !ok {
			return out
		}
		if broken == "" {
			broken = m.judge(after, k.good, c)
		}
		if broken != "" {
			k.report(broken, at)
			return out
		}
		out = append(out, reached{world: *after, at: at})
	}
	return out
}

// judge returns the first promise that a world breaks, or from which no way leads
// to idle.
func (m *machine) judge(w *world, good *keys, c *coder) string {
	broken := m.state(w)
	if broken == "" {
		broken = m.lives(*w, false, good, c)
	}
	if broken == "" {
		broken = m.lives(*w, true, good, c)
	}
	return broken
}

// place numbers a new world; false when there are enough.
func (k *walk) place(o origin) (uint32, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.origins) > int(k.limit) {
		return 0, false
	}
	k.origins = append(k.origins, o)
	k.states.Store(uint32(len(k.origins)))  //nolint:gosec // a few million
	return uint32(len(k.origins) - 1), true //nolint:gosec // a few million
}

func (k *walk) report(broken string, at uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken == "" {
		k.broken, k.last = broken, at
	}
}

// transcript tells the way to a broken promise, in lines that TestReplay plays.
func (s scope) transcript(c code, way []event, broken string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# %s: %s\n%s\n", s.name, broken, s.line())
	m := &machine{scope: s, code: c}
	w := s.start()
	for _, e := range way {
		m.at(&w)
		after, ok := m.apply(e)
		if !ok {
			fmt.Fprintf(&out, "# %s: nothing happens\n", e.text(&w))
		}
		fmt.Fprintln(&out, e.text(&w))
		if after.rec.Rev != w.rec.Rev || after.edge.Active != w.edge.Active {
			fmt.Fprintf(&out, "  %s generation %d active %d other %d bundle %v chain %v; served %d\n",
				after.rec.Phase, after.rec.Generation, after.rec.Active, after.rec.Other, after.rec.Bundle, after.rec.Chain, after.edge.Active)
		}
		w = *after
	}
	return out.String()
}
