package authority

import (
	"fmt"
	"slices"
	"time"
)

// Outlook is what a rotation that began now would do to one host.
type Outlook struct {
	Host string
	// What is "ready", "holds", "sleeps", "fails", "joining" or "skipped".
	What string
	// Text is the reason, and what to do.
	Text string
}

// Plan is what a rotation would do, and what keeps it from starting.
type Plan struct {
	// Blocked says why it cannot start now; nil when it can.
	Blocked error
	Hosts   []Outlook
}

// Plan says what a rotation begun now would do to whom; nothing changes. skip are
// the IDs of hosts that would be passed over, patience is how long gone hosts
// would be waited for.
func (r Rotation) Plan(v View, s Start, skip []string) Plan {
	n, err := r.begin(v, s)
	var p Plan
	if err != nil {
		p.Blocked = err
		n = r.stage(v, s.Patience) // as if it could
		n.Compromised = s.Compromised
	}
	n.Skipped = skip
	for _, h := range v.Hosts {
		if h.Removed {
			continue
		}
		o := r.outlook(h, v, n)
		o.Host = h.Name
		p.Hosts = append(p.Hosts, o)
	}
	return p
}

// Start says how a rotation begins. The zero value is a planned one that waits
// for gone hosts not at all.
type Start struct {
	// Patience is how long gone hosts are waited for after each step.
	Patience time.Duration
	// Compromised: a CA's key is stolen. Replace: the staged CA makes way.
	Compromised, Replace bool
}

func (r Rotation) begin(v View, s Start) (Rotation, error) {
	switch {
	case s.Compromised:
		return r.Compromise(v, s.Patience)
	case s.Replace:
		return r.Replace(v, s.Patience)
	default:
		return r.Rotate(v, s.Patience)
	}
}

// outlook judges a host by what it has now, for the rotation n that would follow.
func (r Rotation) outlook(h Host, v View, n Rotation) Outlook {
	lack, _ := r.judge(h, v)
	beyond := h.holds() < n.OtherReach
	passed := slices.Contains(n.Skipped, h.ID)
	switch {
	case passed && (n.Compromised || beyond):
		return Outlook{What: "fails", Text: "is passed over: its pulls fail from the switch on, until its agent has been in contact"}
	case passed:
		return Outlook{What: "skipped", Text: "is passed over: it pulls through the predecessors until its agent has been in contact"}
	case !r.covers(h):
		return Outlook{What: "joining", Text: "has not shown complete evidence yet, so nobody waits for it" + reason(lack)}
	case h.Present && lack == "":
		return Outlook{What: "ready", Text: "trusts what is served, and gets the new CA within seconds"}
	case h.Present && n.Compromised:
		return Outlook{What: "fails", Text: fmt.Sprintf("%s; unless that changes within %s, its pulls fail until it does", lack, n.Patience)}
	case h.Present:
		return Outlook{What: "holds", Text: fmt.Sprintf("%s; the switch waits for it without limit: mend it, or pass over it with --skip %s", lack, h.Name)}
	case n.Compromised:
		return Outlook{What: "fails", Text: "is gone: its pulls fail from the switch on, until its agent has been in contact"}
	case beyond:
		return Outlook{What: "fails", Text: fmt.Sprintf("is gone, and is waited for %s after each step; %s, so its pulls fail until its agent has been in contact", n.Patience, n.unlinked())}
	default:
		return Outlook{What: "sleeps", Text: fmt.Sprintf("is gone: it is waited for %s after each step, and pulls through the predecessors when it comes back", n.Patience)}
	}
}

// unlinked says why a host that was gone for too long does not verify the other
// CA's leaf.
func (r Rotation) unlinked() string {
	if r.Adopted != 0 && (r.Active == r.Adopted || r.Other == r.Adopted) {
		return "the adopted certificate signs no predecessor"
	}
	return "its CA is too old for the predecessors"
}

func reason(lack string) string {
	if lack == "" {
		return ""
	}
	return ": it " + lack
}
