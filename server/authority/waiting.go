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
}

// Waiting lists whom the next step waits for, in the order of v.Hosts. It is
// empty in the idle phase and when the step is due.
func (r Rotation) Waiting(v View) []Wait {
	if r.Phase == Idle {
		return nil
	}
	var waits []Wait
	if r.Phase != Retiring && !r.settled(v) {
		waits = append(waits, Wait{Host: "edge", Reason: "does not serve the current certificate yet", Advice: "see the server's log for the reason"})
	}
	if r.Phase == Staged && r.Rollback {
		return waits
	}
	if r.Phase == Staged && v.Serving.Next != r.Other {
		waits = append(waits, Wait{Host: "edge", Reason: "does not offer the next certificate", Advice: "see the server's log for the reason, or take the rotation back: trustcast ca rollback"})
	}
	for _, h := range v.Hosts {
		if !r.waited(h, v) {
			continue
		}
		if lack, refused := r.lacks(h, v, r.Phase); lack != "" {
			waits = append(waits, Wait{Host: h.Name, Reason: lack, Advice: r.advice(h, refused)})
		}
	}
	return waits
}

// lacks says what a host's evidence lacks for the step that ends phase, or "".
// refused: the host looked and said no.
func (r Rotation) lacks(h Host, v View, phase Phase) (lack string, refused bool) {
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
	if phase == Retiring {
		return "", false
	}
	if !e.Offline {
		return "has the files, but they are not in effect" + because(e), true
	}
	needed := []CAID{r.Active}
	if phase == Staged {
		needed = append(needed, r.Other)
	}
	for _, ca := range needed {
		if ca != 0 && !slices.Contains(e.Solo, ca) {
			return fmt.Sprintf("CA %d on its disk does not verify the leaf that it issued%s", ca, because(e)), true
		}
	}
	if phase == Staged && e.Probe == certs.NotTried {
		return "has not tried the future certificate yet", false
	}
	if phase == Staged && e.Probe == certs.Refused {
		return "refuses the future certificate" + because(e), true
	}
	if phase != Staged {
		if e.Revision < r.SwitchedRev {
			return "has not confirmed the switch yet", false
		}
		if e.Live == certs.Refused {
			return "refuses the served certificate" + because(e), true
		}
	}
	return "", false
}

func because(e *Evidence) string {
	if e.Problem == "" {
		return ""
	}
	return ": " + e.Problem
}

func (r Rotation) advice(h Host, refused bool) string {
	pass := fmt.Sprintf("or pass over it: trustcast ca rotate --skip %s", h.Name)
	switch {
	case !h.Present:
		return fmt.Sprintf("start the agent there, %s; without either it is waited for until %s", pass, r.Deadline.UTC().Format("15:04:05 MST"))
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
