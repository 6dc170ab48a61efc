package authority

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
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

// maxLinks bounds the predecessors that are served beside a leaf: 16 links are
// about 8 kB in each handshake, and cover 16 years of yearly rotations.
const maxLinks = 16

// ErrNotNow says that an event does not fit the phase; nothing changed.
var ErrNotNow = errors.New("not now")

// Link is one predecessor: CA's key signed by By.
type Link struct {
	CA CAID `json:"ca"`
	By CAID `json:"by"`
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
	// Rollback: the staged CA is being taken back.
	Rollback bool `json:"rollback"`
	// Active issued what the edge serves; Other is the CA that comes (staged)
	// or goes (switched), 0 for none. A CA's key exists iff it is one of them.
	Active CAID `json:"active"`
	Other  CAID `json:"other"`
	// LastCA is the highest number ever given.
	LastCA CAID `json:"last_ca"`
	// Bundle is what hosts should trust: one or two, Active always among them.
	Bundle []CAID `json:"bundle"`
	// Chain is served beside leaf(Active), OtherChain beside leaf(Other);
	// newest link first.
	Chain      []Link `json:"chain"`
	OtherChain []Link `json:"other_chain"`
	// Skipped are hosts that the operator passed over in this rotation.
	Skipped []string `json:"skipped"`
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

// Evidence is a host's newest report in terms of CA numbers.
type Evidence struct {
	Revision, Number, Generation uint64
	// Bundle is what the host has on disk; nil when it is no bundle of ours.
	Bundle []CAID
	// Solo are the CAs on disk that alone verify the leaf they issued.
	Solo        []CAID
	Offline     bool
	Probe, Live certs.Outcome
	// Age since it was received.
	Age time.Duration
	// Problem says what is wrong, in the host's words.
	Problem string
}

// Host is what the rotation sees of a host.
type Host struct {
	ID, Name                  string
	Removed, Covered, Present bool
	// Connected: a stream is open, or was seen a moment ago.
	Connected bool
	// Evidence came over the newest stream; nil: none.
	Evidence *Evidence
}

// Serving is what an edge presents.
type Serving struct {
	Active CAID
	Chain  []Link
	// Next is the CA whose leaf the edge offers to who asks for the future
	// one; 0 for none.
	Next CAID
}

// View is the volatile part of the world at one moment.
type View struct {
	Now time.Time
	// Tick is the hosts' report interval; evidence lives for two.
	Tick    time.Duration
	Serving Serving
	Hosts   []Host
}

// First is the record that init writes: one CA, generation 1.
func First() Rotation {
	return Rotation{Rev: 1, Generation: 1, Phase: Idle, Active: 1, LastCA: 1, Bundle: []CAID{1}}
}

// Rotate stages a new CA: hosts get it beside the active one, which goes on
// serving. Patience is how long gone hosts are waited for after each step.
func (r Rotation) Rotate(v View, patience time.Duration) (Rotation, error) {
	if r.Phase != Idle {
		return r, fmt.Errorf("%w: rotation %d is under way (%s); see `trustcast status` for whom it waits, pass over a host with `trustcast ca rotate --skip HOST`, or take it back with `trustcast ca rollback` while it is staged", ErrNotNow, r.Number, r.Phase)
	}
	if !r.settled(v) {
		return r, fmt.Errorf("%w: the edge does not serve the current certificate yet; try again in a moment", ErrNotNow)
	}
	n := r.change()
	n.LastCA++
	n.Other = n.LastCA
	n.OtherChain = append([]Link{{CA: n.Other, By: n.Active}}, n.Chain...)
	if len(n.OtherChain) > maxLinks {
		n.OtherChain = n.OtherChain[:maxLinks]
	}
	n.Bundle = []CAID{n.Active, n.Other}
	n.Generation++
	n.Number++
	n.Skipped = nil
	n.Rollback = false
	n.Phase = Staged
	n.Started = v.Now
	n.Patience = patience
	n.Deadline = v.Now.Add(patience)
	return n, nil
}

// Skip passes over a host for the rest of this rotation.
func (r Rotation) Skip(host string) (Rotation, error) {
	if r.Phase == Idle {
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

// TakeBack marks a staged rotation for rollback; Advance does it.
func (r Rotation) TakeBack() (Rotation, error) {
	switch {
	case r.Phase == Staged && r.Rollback:
		return r, nil
	case r.Phase == Staged:
		n := r.change()
		n.Rollback = true
		return n, nil
	case r.Phase == Idle:
		return r, fmt.Errorf("%w: no rotation is under way, nothing to take back", ErrNotNow)
	case r.Phase == Retiring:
		return r, fmt.Errorf("%w: rotation %d is ending, only one CA is left; wait for the hosts that `trustcast status` names", ErrNotNow, r.Number)
	default:
		return r, fmt.Errorf("%w: the new CA serves already (%s); let the rotation end and start another with `trustcast ca rotate`", ErrNotNow, r.Phase)
	}
}

// RenewLeaf gives the served certificates a new revision, so that hosts look at
// them anew; bundle and generation stay.
func (r Rotation) RenewLeaf() Rotation { return r.change() }

// Advance takes the one automatic step that is due, if any: taking back,
// switch, retire or done. It returns the record unchanged when somebody is
// waited for (see Waiting).
func (r Rotation) Advance(v View) Rotation {
	switch {
	case r.Phase == Staged && r.Rollback && r.settled(v):
		return r.alone(v)
	case r.Phase == Staged && !r.Rollback && len(r.Waiting(v)) == 0:
		n := r.change()
		n.Active, n.Other = n.Other, n.Active
		n.Chain, n.OtherChain = n.OtherChain, n.Chain
		n.Phase = Switched
		n.SwitchedRev = n.Rev
		n.Deadline = v.Now.Add(n.Patience)
		return n
	case r.Phase == Switched && len(r.Waiting(v)) == 0:
		return r.alone(v)
	case r.Phase == Retiring && (len(r.Waiting(v)) == 0 || !v.Now.Before(r.Deadline)):
		n := r.change()
		n.Phase = Idle
		n.Skipped = nil
		n.Deadline = time.Time{}
		return n
	}
	return r
}

// alone leaves the active CA as the only one; the other is forgotten.
func (r Rotation) alone(v View) Rotation {
	n := r.change()
	n.Bundle = []CAID{n.Active}
	n.Generation++
	n.Other, n.OtherChain = 0, nil
	n.Rollback = false
	n.Phase = Retiring
	n.Deadline = v.Now.Add(n.Patience)
	return n
}

// change returns a copy with the next revision. Slices are replaced, never
// changed in place, so a copy may share them.
func (r Rotation) change() Rotation {
	r.Rev++
	return r
}

// settled: the edge serves what the record says.
func (r Rotation) settled(v View) bool {
	return v.Serving.Active == r.Active && slices.Equal(v.Serving.Chain, r.Chain)
}

// waited: the next step does not happen without this host.
func (r Rotation) waited(h Host, v View) bool {
	return !h.Removed && h.Covered && !slices.Contains(r.Skipped, h.ID) &&
		(h.Present || v.Now.Before(r.Deadline))
}

// Complete says whether a host's evidence covers it by the promises: it has the
// wanted bundle and everything in it works.
func (r Rotation) Complete(h Host, v View) bool {
	lack, _ := r.judge(h, v)
	return lack == ""
}

// judge says what a host's evidence lacks to be complete, in any phase.
func (r Rotation) judge(h Host, v View) (lack string, refused bool) {
	if r.Phase == Retiring { // ends on the new bundle alone; completeness asks for more
		return r.lacks(h, v, Idle)
	}
	return r.lacks(h, v, r.Phase)
}
