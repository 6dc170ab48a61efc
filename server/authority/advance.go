package authority

import (
	"slices"
	"time"
)

// Advance takes the one automatic step that is due, if any. It returns the record
// unchanged when somebody is waited for (see Waiting) and when it is frozen.
func (r Rotation) Advance(v View) Rotation {
	if n := r.outrun(v); n.Rev != r.Rev {
		return n
	}
	if r.superseded(v) {
		return r
	}
	if n := r.prune(v); n.Rev != r.Rev {
		return n
	}
	switch {
	case r.Restored && len(r.Waiting(v)) == 0:
		return r.open(v)
	case r.Restored:
		return r
	case r.Phase == Staged && r.Rollback && r.settled(v):
		return r.alone(v)
	case r.Phase == Staged && !r.Rollback && r.settled(v) && v.Serving.Next == r.Other:
		return r.switchOver(v)
	case r.Phase == Switched && r.settled(v):
		return r.retire(v)
	case r.Phase == Retiring && (len(r.Waiting(v)) == 0 || r.overdue(v)):
		return r.done()
	}
	return r
}

// switchOver has the edge serve the new CA when every waited host is ready. A
// stolen key waits until the deadline only, and a CA that is about to end for
// nobody: who is not ready then is left behind, and named.
func (r Rotation) switchOver(v View) Rotation {
	ready := len(r.Waiting(v)) == 0
	hurried := r.Compromised && r.overdue(v) || r.pressing(v)
	if !ready && !hurried {
		return r
	}
	n := r.swap()
	n.Phase = Switched
	n.Deadline = v.Now.Add(n.Patience)
	if r.Compromised { // its key is destroyed now; the bundle has it until retire
		n.Other, n.OtherChain, n.OtherReach = 0, nil, 0
	}
	if r.Compromised || !ready {
		n = n.leave(r.unready(v, Staged))
	}
	return n.leave(n.beyond(v))
}

// retire leaves the new CA as the only one when every waited host has confirmed
// it; with a stolen key, or when it is about to end, it waits for nobody.
func (r Rotation) retire(v View) Rotation {
	confirmed := len(r.Waiting(v)) == 0
	if !confirmed && !r.Compromised && !r.pressing(v) {
		return r
	}
	n := r.alone(v)
	if !confirmed && !r.Compromised { // with a stolen key the switch has left them behind
		n = n.leave(r.unready(v, Switched))
	}
	return n
}

// alone leaves the active CA as the only one; the other is forgotten.
func (r Rotation) alone(v View) Rotation {
	n := r.change()
	n.Bundle = []CAID{n.Active}
	n.Generation++
	n.Other, n.OtherChain, n.OtherReach = 0, nil, 0
	n.Phase = Retiring
	n.Deadline = v.Now.Add(n.Patience)
	return n
}

// done ends the rotation; laggards stay pending.
func (r Rotation) done() Rotation {
	n := r.change()
	n.Phase = Idle
	n.Rollback, n.Compromised = false, false
	n.Skipped = nil
	n.Deadline = time.Time{}
	return n
}

// prune drops links that have ended, and every older one: no host gets to them.
func (r Rotation) prune(v View) Rotation {
	if v.ClockOff || len(v.Ended) == 0 {
		return r
	}
	n := r.change()
	var cut, otherCut bool
	n.Chain, n.Reach, cut = cutChain(r.Chain, r.Reach, v.Ended)
	n.OtherChain, n.OtherReach, otherCut = cutChain(r.OtherChain, r.OtherReach, v.Ended)
	if !cut && !otherCut {
		return r
	}
	return n.leave(n.beyond(v))
}

// cutChain returns a chain up to its first ended link, and how far it reaches.
func cutChain(chain []Link, reach uint64, ended []Link) ([]Link, uint64, bool) {
	i := slices.IndexFunc(chain, func(l Link) bool { return slices.Contains(ended, l) })
	if i < 0 {
		return chain, reach, false
	}
	return chain[:i:i], max(reach, chain[i].Generation), true
}

// unready lists the covered hosts that lack something for the step that ends
// phase, are gone, or were passed over.
func (r Rotation) unready(v View, phase Phase) []string {
	return r.ids(v, func(h Host) bool {
		lack, _ := r.lacks(h, v, phase)
		return lack != "" || !h.Present || slices.Contains(r.Skipped, h.ID)
	})
}

// beyond lists the covered hosts whose newest known generation is too old for the
// chain that is served.
func (r Rotation) beyond(v View) []string {
	return r.ids(v, func(h Host) bool { return h.holds() < r.Reach })
}

func (r Rotation) ids(v View, which func(Host) bool) []string {
	var ids []string
	for _, h := range v.Hosts {
		if r.covers(h) && which(h) {
			ids = append(ids, h.ID)
		}
	}
	return ids
}

// leave goes on without hosts: the promises do not cover them any more.
func (r Rotation) leave(ids []string) Rotation {
	if len(ids) > 0 {
		r.Uncover = slices.Sorted(slices.Values(slices.Concat(r.Uncover, ids)))
	}
	return r
}

// Uncovered says that the hosts' own records have what Uncover asked for.
func (r Rotation) Uncovered() Rotation {
	n := r.change()
	n.Uncover = nil
	return n
}
