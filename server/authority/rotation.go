package authority

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// CAID numbers the registry CAs of one server, from 1 on; 0 is none. The pure
// rotation knows CAs by number only, their certificates are elsewhere.
type CAID uint64

// Phase is where a rotation stands.
type Phase string

// The phases of ROTATION. A rotation goes through them in this order.
const (
	Idle     Phase = "idle"
	Staged   Phase = "staged"   // the bundle has the next CA too; the old one serves
	Switched Phase = "switched" // the new one serves; the bundle still has the old
	Retiring Phase = "retiring" // the bundle has the active CA alone
)

const (
	// maxLinks bounds the predecessors that are served beside a leaf: 16 links
	// are about 8 kB in each handshake, and cover 16 years of yearly rotations.
	maxLinks = 16
	// compromisedPatience is how long hosts are waited for when a CA's key is
	// stolen: every second more is one for the thief, and hosts that are there
	// need milliseconds.
	compromisedPatience = 30 * time.Second
	// A CA that serves again after a rollback must live long enough for a new
	// rotation: 30 days, or a twelfth of a short life.
	rollbackLeaves = 30 * 24 * time.Hour
	rollbackPart   = 12
)

// ErrNotNow says that an event does not fit the phase; nothing changed.
var ErrNotNow = errors.New("not now")

// Link is one predecessor: CA's key signed by By.
type Link struct {
	CA CAID `json:"ca"`
	By CAID `json:"by"`
	// Generation is the first whose bundle had CA: who has it needs no older link.
	Generation uint64 `json:"generation,omitempty"`
}

// Rotation is the record: the one truth about which CAs exist and what the edge
// must serve. It is a value; events return a changed copy, and nothing happens
// in the world before the copy is durable.
type Rotation struct {
	// Rev grows by one with each change.
	Rev uint64 `json:"rev"`
	// Generation grows each time Bundle changes.
	Generation uint64 `json:"generation"`
	// Number counts rotations; evidence from an earlier one is void.
	Number uint64 `json:"number"`
	Phase  Phase  `json:"phase"`
	// Rollback: the CA that was to come is being taken back, until idle.
	Rollback bool `json:"rollback"`
	// Compromised: a CA's key is stolen. The new CA is not signed by it, hosts are
	// waited for seconds only, and there is no way back after the switch.
	Compromised bool `json:"compromised,omitempty"`
	// Restored: the record is from a backup. Nothing is served until every present
	// host has the active CA itself.
	Restored bool `json:"restored,omitempty"`
	// Active issued what the edge serves; Other is the CA that comes (staged)
	// or goes (switched), 0 for none. A CA's key exists iff it is one of them.
	Active CAID `json:"active"`
	Other  CAID `json:"other"`
	// Adopted is the CA that was taken over with the registry, 0 for none: its own
	// key is not here, so it signs no predecessor. What has its key is its leaf.
	Adopted CAID `json:"adopted,omitempty"`
	// LastCA is the highest number ever given.
	LastCA CAID `json:"last_ca"`
	// Bundle is what hosts should trust: one or two, Active always among them.
	Bundle []CAID `json:"bundle"`
	// Chain is served beside leaf(Active), OtherChain beside leaf(Other);
	// newest link first.
	Chain      []Link `json:"chain"`
	OtherChain []Link `json:"other_chain"`
	// Reach is the oldest generation with which a host verifies leaf(Active) and
	// Chain; OtherReach is that of the other pair.
	Reach      uint64 `json:"reach,omitempty"`
	OtherReach uint64 `json:"other_reach,omitempty"`
	// Skipped are hosts that the operator passed over in this rotation.
	Skipped []string `json:"skipped"`
	// Uncover are hosts that a step went on without and that may fail until they
	// come back: the promises do not cover them before their next complete
	// evidence. Sorted; emptied once their own records say so.
	Uncover []string `json:"uncover,omitempty"`
	// SwitchedRev is the revision of the last switch: only reports that answer
	// it or a later one confirm what is served.
	SwitchedRev uint64 `json:"switched_rev"`
	// Started is when this rotation began.
	Started time.Time `json:"started"`
	// Deadline is until when gone hosts are waited for; Patience is how far it
	// moves with each step.
	Deadline time.Time     `json:"deadline"`
	Patience time.Duration `json:"patience"`
}

// First is the record that init writes: one CA, generation 1.
func First() Rotation {
	return Rotation{Rev: 1, Generation: 1, Phase: Idle, Active: 1, LastCA: 1, Bundle: []CAID{1}, Reach: 1}
}

// Taken is the record of a registry that was taken over: CA 1 is what its hosts
// trust already, at generation 0.
func Taken() Rotation {
	return Rotation{Rev: 1, Phase: Idle, Active: 1, Adopted: 1, LastCA: 1, Bundle: []CAID{1}}
}

// Rotate stages a new CA: hosts get it beside the active one, which goes on
// serving. Patience is how long gone hosts are waited for after each step.
func (r Rotation) Rotate(v View, patience time.Duration) (Rotation, error) {
	if err := r.startable(v); err != nil {
		return r, err
	}
	if r.Phase != Idle {
		back := ""
		if r.Phase != Retiring && !r.Rollback {
			back = ", or take it back with `trustcast ca rollback`"
		}
		return r, fmt.Errorf("%w: rotation %d is under way (%s); see `trustcast status` for whom it waits, or pass over a host with `trustcast ca rotate --rotation %d --skip HOST`%s", ErrNotNow, r.Number, r.Phase, r.Number, back)
	}
	return r.stage(v, patience), nil
}

// Replace forgets the staged CA and stages another in its place.
func (r Rotation) Replace(v View, patience time.Duration) (Rotation, error) {
	if err := r.startable(v); err != nil {
		return r, err
	}
	switch {
	case r.Phase == Idle:
		return r, fmt.Errorf("%w: no rotation is under way that could be replaced; start one with `trustcast ca rotate`", ErrNotNow)
	case r.Rollback:
		return r, fmt.Errorf("%w: rotation %d is being taken back; start another with `trustcast ca rotate` when it has ended", ErrNotNow, r.Number)
	case r.Phase != Staged:
		return r, fmt.Errorf("%w: the new CA serves already (%s); let rotation %d end and start another with `trustcast ca rotate`", ErrNotNow, r.Phase, r.Number)
	case r.Compromised:
		return r, fmt.Errorf("%w: rotation %d replaces a stolen CA and goes on within seconds; if the new one is stolen too, repeat `trustcast ca rotate --compromised`", ErrNotNow, r.Number)
	}
	return r.stage(v, patience), nil
}

// Compromise answers the theft of a CA's key, in any phase: the CA beside the
// active one is forgotten, a new one is staged that the stolen key did not sign,
// and hosts are waited for until the deadline only. Hosts that do not
// have it by then fail until they come back; Outlooks names them beforehand.
func (r Rotation) Compromise(v View, patience time.Duration) (Rotation, error) {
	if err := r.startable(v); err != nil {
		return r, err
	}
	n := r.stage(v, patience)
	n.Compromised, n.OtherChain, n.OtherReach = true, nil, n.Generation
	return n, nil
}

// startable: nothing stands in the way of a new CA, whatever the phase.
func (r Rotation) startable(v View) error {
	if frozen := r.Frozen(v); frozen != "" {
		return fmt.Errorf("%w: %s", ErrNotNow, frozen)
	}
	if !r.settled(v) {
		return fmt.Errorf("%w: the edge does not serve the current certificate yet; try again in a moment, and see the server's log if it stays", ErrNotNow)
	}
	return nil
}

// stage begins a rotation to a new CA that the active one signs, unless that was
// adopted; whatever was beside the active one is forgotten.
func (r Rotation) stage(v View, patience time.Duration) Rotation {
	n := r.change()
	n.LastCA++
	n.Generation++
	n.Number++
	n.Other = n.LastCA
	n.Bundle = []CAID{n.Active, n.Other}
	n.OtherChain = append([]Link{{CA: n.Other, By: n.Active, Generation: n.Generation}}, n.Chain...)
	n.OtherReach = n.Reach
	switch {
	case n.Active == n.Adopted:
		n.OtherChain, n.OtherReach = nil, n.Generation
	case len(n.OtherChain) > maxLinks:
		n.OtherReach = max(n.Reach, n.OtherChain[maxLinks].Generation)
		n.OtherChain = n.OtherChain[:maxLinks]
	}
	n.Skipped = nil
	n.Rollback, n.Compromised = false, false
	n.Phase = Staged
	n.Started = v.Now
	n.Patience = patience
	n.Deadline = v.Now.Add(patience)
	return n
}

// Skip passes over a host for the rest of this rotation.
func (r Rotation) Skip(host string) (Rotation, error) {
	if r.Phase == Idle && !r.Restored {
		return r, fmt.Errorf("%w: no rotation is under way", ErrNotNow)
	}
	if slices.Contains(r.Skipped, host) {
		return r, nil
	}
	n := r.change()
	n.Skipped = append(slices.Clone(n.Skipped), host)
	return n, nil
}

// Wait sets how long gone hosts are waited for, from now on.
func (r Rotation) Wait(v View, patience time.Duration) (Rotation, error) {
	if r.Phase == Idle {
		return r, fmt.Errorf("%w: no rotation is under way", ErrNotNow)
	}
	n := r.change()
	n.Patience = patience
	n.Deadline = v.Now.Add(patience)
	return n, nil
}

// TakeBack takes a rotation back: at once while it is staged; after the switch
// the old CA serves again first, which every host has still on disk. Advance does
// the rest. It is refused once the old CA is retired, ends soon, or was replaced
// because its key is stolen.
func (r Rotation) TakeBack(v View) (Rotation, error) {
	switch {
	case r.Frozen(v) != "":
		return r, fmt.Errorf("%w: %s", ErrNotNow, r.Frozen(v))
	case r.Rollback: // until idle: whoever asks twice gets what they want
		return r, nil
	case r.Phase == Staged:
		n := r.change()
		n.Rollback = true
		return n, nil
	case r.Phase == Idle:
		return r, fmt.Errorf("%w: no rotation is under way, nothing to take back", ErrNotNow)
	case r.Phase == Retiring:
		return r, fmt.Errorf("%w: rotation %d is ending, only one CA is left; wait for the hosts that `trustcast status` names", ErrNotNow, r.Number)
	case r.Compromised:
		return r, fmt.Errorf("%w: the CA before this one was replaced because its key is stolen; it must not serve again", ErrNotNow)
	}
	if left := v.Other.Until.Sub(v.Now); left < min(rollbackLeaves, v.Other.length()/rollbackPart) {
		return r, fmt.Errorf("%w: the CA before this one ends in %s, too soon to serve again; let rotation %d end and start another with `trustcast ca rotate`", ErrNotNow, left.Round(time.Minute), r.Number)
	}
	n := r.swap()
	n.Phase, n.Rollback = Staged, true
	n.Deadline = v.Now.Add(n.Patience)
	return n, nil
}

// RenewLeaf gives the served certificates a new revision, so that hosts look at
// them anew; bundle and generation stay.
func (r Rotation) RenewLeaf() Rotation { return r.change() }

// swap has the other CA serve: what is served has a new revision from here on.
func (r Rotation) swap() Rotation {
	n := r.change()
	n.Active, n.Other = n.Other, n.Active
	n.Chain, n.OtherChain = n.OtherChain, n.Chain
	n.Reach, n.OtherReach = n.OtherReach, n.Reach
	n.SwitchedRev = n.Rev
	return n
}

// change returns a copy with the next revision. Slices are replaced, never
// changed in place, so a copy may share them.
func (r Rotation) change() Rotation {
	r.Rev++
	return r
}
