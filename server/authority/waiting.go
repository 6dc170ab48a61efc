package authority

import (
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// Wait names somebody without whom the next step does not happen.
type Wait struct {
	// Host is the host's name, or "edge".
	Host string
	// Reason is what is missing; Advice what the operator can do.
	Reason, Advice string
	// id of the host; "" for others.
	id string
}

// Waiting lists whom the next step waits for, in the order of v.Hosts. It is
// empty in the idle phase and when the step is due.
func (r Rotation) Waiting(v View) []Wait {
	switch {
	case r.Phase == Idle && !r.Restored:
		return nil
	case r.superseded(v):
		return []Wait{{Host: "server", Reason: "is frozen: " + r.Frozen(v), Advice: "nothing else helps"}}
	}
	waits := r.lacking(v)
	if len(waits) == 0 && r.pullsLinger(v) {
		waits = append(waits, Wait{
			Host:   "pulls",
			Reason: fmt.Sprintf("that began before their host had the new CA may be under way, and nothing links the adopted certificate to it: they get %s", r.Patience),
			Advice: fmt.Sprintf("wait, or shorten it: trustcast ca rotate --rotation %d --deadline 1m", r.Number),
		})
	}
	return waits
}

// lacking lists the edge and the hosts that lack something for the next step.
func (r Rotation) lacking(v View) []Wait {
	waits := r.waitingForEdge(v)
	if r.Phase == Staged && r.Rollback && !r.Restored {
		return waits
	}
	for _, h := range v.Hosts {
		if !r.waited(h, v) {
			continue
		}
		if lack, refused := r.lacks(h, v, r.Phase); lack != "" {
			waits = append(waits, Wait{Host: h.Name, Reason: lack, Advice: r.advice(h, refused), id: h.ID})
		}
	}
	return waits
}

// readySince is View.Ready after a look at v, when it was since before. A host that
// was ready when it was heard last has not lost its files by being silent.
func (r Rotation) readySince(since time.Time, v View) time.Time {
	v.Hosts = slices.Clone(v.Hosts)
	for i, h := range v.Hosts {
		if h.Evidence != nil {
			heard := *h.Evidence
			heard.Age = 0
			v.Hosts[i].Evidence = &heard
		}
	}
	switch {
	case r.Phase != Staged || len(r.lacking(v)) > 0:
		return time.Time{}
	case since.IsZero():
		return v.Now
	}
	return since
}

// pullsLinger: a client decides what it trusts when its pull begins. Where no
// predecessor serves those that began with the adopted certificate alone, the switch
// leaves them time to end, once every host is ready.
func (r Rotation) pullsLinger(v View) bool {
	return r.Phase == Staged && !r.Rollback && !r.Compromised && r.Adopted != 0 && r.Active == r.Adopted &&
		(v.ClockOff || v.Ready.IsZero() || v.Now.Sub(v.Ready) < r.Patience) && slices.ContainsFunc(v.Hosts, r.covers)
}

// waitingForEdge is what the edge lacks for the next step. A restored server has
// none that serves.
func (r Rotation) waitingForEdge(v View) []Wait {
	var waits []Wait
	if r.Restored {
		return nil
	}
	if r.Phase != Retiring && !r.settled(v) {
		waits = append(waits, Wait{Host: "edge", Reason: "does not serve the current certificate yet", Advice: "see the server's log for the reason"})
	}
	if r.Phase == Staged && !r.Rollback && v.Serving.Next != r.Other {
		waits = append(waits, Wait{Host: "edge", Reason: "does not offer the next certificate", Advice: "see the server's log for the reason, or take the rotation back: trustcast ca rollback"})
	}
	return waits
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

// lacks says what a host's evidence lacks for the step that ends phase, or "".
// refused: the host looked and said no.
func (r Rotation) lacks(h Host, v View, phase Phase) (lack string, refused bool) {
	if lack, refused = r.stale(h, v); lack != "" || phase == Retiring && !r.Restored {
		return lack, refused
	}
	e := h.Evidence
	if !e.Offline {
		return "has the files, but they are not in effect" + because(e), true
	}
	needed := []CAID{r.Active}
	if phase == Staged && !r.Rollback {
		needed = append(needed, r.Other)
	}
	for _, ca := range needed {
		if ca != 0 && !slices.Contains(e.Solo, ca) {
			return fmt.Sprintf("CA %d on its disk does not verify the leaf that it issued%s", ca, because(e)), true
		}
	}
	switch {
	case r.Restored: // there is no edge to shake hands with
		return "", false
	case phase == Staged && !r.Rollback:
		return r.lacksProbe(e)
	default:
		return r.lacksLive(e)
	}
}

// stale says why evidence counts for nothing now, or "".
func (r Rotation) stale(h Host, v View) (lack string, refused bool) {
	e := h.Evidence
	switch {
	case e == nil && h.Present && !h.Connected:
		return "is not connected, and has not reported since this server started", false
	case e == nil && h.Present:
		return "has not reported since it connected", false
	case e == nil:
		return "is gone and has not reported", false
	case e.Age >= 2*v.Tick && !h.Connected:
		return fmt.Sprintf("is not connected, its last report is %s old", e.Age.Round(time.Second)), false
	case e.Age >= 2*v.Tick:
		return fmt.Sprintf("its last report is %s old", e.Age.Round(time.Second)), false
	case e.Number != r.Number || e.Generation != r.Generation || !slices.Equal(e.Bundle, r.Bundle):
		return fmt.Sprintf("has generation %d of rotation %d on disk, wanted is %d of %d%s", e.Generation, e.Number, r.Generation, r.Number, because(e)), e.Problem != ""
	}
	return "", false
}

func (r Rotation) lacksProbe(e *Evidence) (lack string, refused bool) {
	switch e.Probe {
	case certs.NotTried:
		return "has not tried the future certificate yet", false
	case certs.Refused:
		return "refuses the future certificate" + because(e), true
	}
	return "", false
}

func (r Rotation) lacksLive(e *Evidence) (lack string, refused bool) {
	switch {
	case e.Revision < r.SwitchedRev:
		return "has not confirmed the switch yet", false
	case e.Live == certs.Refused:
		return "refuses the served certificate" + because(e), true
	}
	return "", false
}

func because(e *Evidence) string {
	if e.Problem == "" {
		return ""
	}
	return ": " + e.Problem
}

// advice names the rotation, so that following it late starts no other one.
func (r Rotation) advice(h Host, refused bool) string {
	pass := fmt.Sprintf("or pass over it: trustcast ca rotate --rotation %d --skip %s", r.Number, h.Name)
	switch {
	case !h.Present && r.Phase == Staged && h.holds() < r.OtherReach:
		return fmt.Sprintf("start the agent there, %s; without either it is waited for until %s, and its pulls fail from then on until it comes back: %s", pass, r.Deadline.UTC().Format("15:04:05 MST"), r.unlinked())
	case !h.Present:
		return fmt.Sprintf("start the agent there, %s; without either it is waited for until %s", pass, r.Deadline.UTC().Format("15:04:05 MST"))
	case r.Compromised && r.Phase == Staged:
		return fmt.Sprintf("the stolen CA is replaced at %s even so, and this host fails from then on until it has the new one", r.Deadline.UTC().Format("15:04:05 MST"))
	case !h.Connected:
		return "see whether the agent runs there and reaches this server, " + pass
	case refused && r.Phase == Staged:
		return "mend the host, " + pass + ", or take the rotation back: trustcast ca rollback"
	case refused:
		return "mend the host, " + pass
	default:
		return "usually a matter of seconds; if not, look at the agent's log there, " + pass
	}
}
