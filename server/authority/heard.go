package authority

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Whose report can bring the next step, beside that of one host by its ID. A look
// at the whole fleet costs as much as the fleet is large, and each host reports: if
// each report caused one, a rotation would cost the square of the fleet.
const (
	anybody = "" // nobody has looked since the record changed
	nobody  = "-"
)

// heedEvery is how often the whole fleet is looked at because of a host that claims to
// be further than this server: it may claim that with each report.
const heedEvery = time.Second

// heard collects who reported since Run looked last.
type heard struct {
	mu    sync.Mutex
	all   bool
	hosts map[string]struct{} // by ID
}

func (h *heard) add(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hosts == nil {
		h.hosts = map[string]struct{}{}
	}
	h.hosts[id] = struct{}{}
}

func (h *heard) addAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = true
}

// take returns what was collected, and begins anew.
func (h *heard) take() (all bool, hosts map[string]struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all, hosts = h.all, h.hosts
	h.all, h.hosts = false, nil
	return all, hosts
}

// Nudge makes Run look at the whole fleet: an operator acted, a host was removed.
func (a *Authority) Nudge() {
	a.heard.addAll()
	a.wake()
}

// Heard makes Run look at a host that reported, or whose stream ended; at the whole
// fleet only when that can bring the next step.
func (a *Authority) Heard(id string) {
	a.heard.add(id)
	a.wake()
}

func (a *Authority) wake() {
	select {
	case a.nudge <- struct{}{}:
	default:
	}
}

// rest waits until the fleet is worth another look, or returns false when ctx ends.
func (a *Authority) rest(ctx context.Context) bool {
	look, hastened := time.After(a.pause()), false
	for {
		select {
		case <-ctx.Done():
			return false
		case <-look:
			return true
		case <-a.nudge:
			now, soon := a.due(time.Now())
			if now {
				return true
			}
			if soon && !hastened {
				look, hastened = time.After(heedEvery), true
			}
		}
	}
}

// due looks at each host that was heard and at no other, covers whose evidence is
// complete for the first time, and says whether the whole fleet is worth a look: now, or
// soon, since another look at what hosts claim was a moment ago.
func (a *Authority) due(now time.Time) (atOnce, soon bool) {
	all, hosts := a.heard.take()
	if all {
		return true, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.sight(now)
	for id := range hosts {
		report, ok := a.cfg.Host(id)
		if !ok {
			continue // removed, which has nudged
		}
		h := a.host(report, now)
		if a.matters(h, v) || a.coverOne(h, v) != nil { // a look meets the error, and complains
			return true, false
		}
		soon = soon || a.rec.Rotation.claimed(h)
	}
	if soon && now.Sub(a.heeded) >= heedEvery {
		a.heeded = now
		return true, false
	}
	return false, soon
}

// claimed: this host may have been led further than this server, see superseded and
// outrun.
func (r Rotation) claimed(h Host) bool {
	e := h.Evidence
	return e != nil && (e.Generation > r.Generation || e.Generation == r.Generation && e.Bundle == nil)
}

// matters: the step that is next may follow from what this host says.
func (a *Authority) matters(h Host, v View) bool {
	r := a.rec.Rotation
	lack, _ := r.lacks(h, v, r.Phase)
	switch {
	case a.awaits == anybody:
		return true
	case !a.ready.IsZero() && lack != "" && r.waited(h, v):
		return true // it was ready, and the time since then does not count
	default:
		return a.awaits == h.ID && (lack == "" || !r.waited(h, v))
	}
}

// awaited draws one of those whom the next step waits for: until that one is heard,
// no other can bring it. Drawn at random, whatever the order in which hosts report,
// about half of those who lack something are done when it is: a phase takes as many
// looks as the fleet's size has digits, twice or thrice.
func awaited(waits []Wait) string {
	var ids []string
	for _, w := range waits {
		if w.id != "" {
			ids = append(ids, w.id)
		}
	}
	if len(ids) == 0 {
		return nobody // the edge, or time
	}
	return ids[rand.IntN(len(ids))] //nolint:gosec // spreads work, keeps no secret
}

// cover marks hosts whose evidence is complete for the first time.
func (a *Authority) cover(v View) error {
	for _, h := range v.Hosts {
		if err := a.coverOne(h, v); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) coverOne(h Host, v View) error {
	if h.Covered || h.Removed || h.Evidence == nil || !a.rec.Rotation.Complete(h, v) {
		return nil
	}
	if err := a.cfg.Cover(h.ID); err != nil {
		return fmt.Errorf("cover host %s: %w", h.Name, err)
	}
	a.cfg.Log.Info("host covered", "host", h.Name, "generation", a.rec.Rotation.Generation)
	return nil
}
