package authority

import (
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// View is the volatile part of the world at one moment, as the rotation sees it.
type View struct {
	Now time.Time
	// ClockOff: this server's clock cannot be relied on, so nothing happens
	// because of the time alone.
	ClockOff bool
	// Tick is the hosts' report interval; evidence lives for two.
	Tick    time.Duration
	Serving Serving
	Hosts   []Host
	// Active and Other are the lives of these CAs.
	Active, Other Life
	// Ready is since when nobody lacks anything for the switch; zero: somebody does.
	Ready time.Time
	// Ended are links whose certificate is over: no host can use them.
	Ended []Link
}

// Life of a certificate, from its making to its end.
type Life struct{ From, Until time.Time }

// Serving is what an edge presents; the zero value is nothing.
type Serving struct {
	Active CAID
	Chain  []Link
	// Next is the CA whose leaf the edge offers to who asks for the future
	// one; 0 for none.
	Next CAID
}

// Host is what the rotation sees of a host.
type Host struct {
	ID, Name                  string
	Removed, Covered, Present bool
	// Connected: a stream is open, or was seen a moment ago.
	Connected bool
	// Generation is the newest that it was ever known to have on disk.
	Generation uint64
	// Evidence came over the newest stream; nil: none.
	Evidence *Evidence
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

// witnessed: some host's fresh report says that this server's clock is right, or
// there is no host that could.
func (v View) witnessed() bool {
	return !v.ClockOff && (len(v.Hosts) == 0 || slices.ContainsFunc(v.Hosts, func(h Host) bool {
		return h.Evidence != nil && h.Evidence.Age < 2*v.Tick
	}))
}

// settled: the edge serves what the record says.
func (r Rotation) settled(v View) bool {
	return v.Serving.Active == r.Active && slices.Equal(v.Serving.Chain, r.Chain)
}

// covers: the promises cover this host.
func (r Rotation) covers(h Host) bool {
	return !h.Removed && h.Covered && !r.leaves(h.ID)
}

// leaves: the record goes on without this host. It may go on without most of a fleet,
// and each host is asked about.
func (r Rotation) leaves(id string) bool {
	_, is := slices.BinarySearch(r.Uncover, id)
	return is
}

// waited: the next step does not happen without this host. Gone hosts are waited
// for until the deadline, but not when a CA's key is stolen.
func (r Rotation) waited(h Host, v View) bool {
	if r.Restored { // the backup may be older than a host's coverage
		return !h.Removed && h.Present && !slices.Contains(r.Skipped, h.ID)
	}
	return r.covers(h) && !slices.Contains(r.Skipped, h.ID) &&
		(h.Present || !r.Compromised && !r.overdue(v))
}

// overdue: the deadline is over.
func (r Rotation) overdue(v View) bool {
	return (r.Compromised || !v.ClockOff) && !v.Now.Before(r.Deadline)
}

// holds is the newest generation that a host is known to have on disk.
func (h Host) holds() uint64 {
	if h.Evidence != nil {
		return max(h.Generation, h.Evidence.Generation)
	}
	return h.Generation
}

// With 7 days left of the active CA's life a step is forced, so that nothing
// ends because it waited; of a short life that is its last twentieth. In the last
// seventh of that time hosts that were not heard yet are no reason either.
const (
	forcedWithin = 7 * 24 * time.Hour
	forcedPart   = 20
	forcedLast   = 7
)

// pressing: the active CA ends so soon that a step must not wait any longer. The
// hosts have their deadline first, unless it has ended: then nothing verifies it.
func (r Rotation) pressing(v View) bool {
	if v.ClockOff || v.Active.Until.IsZero() {
		return false
	}
	left, margin := v.Active.Until.Sub(v.Now), min(forcedWithin, v.Active.length()/forcedPart)
	switch {
	case left <= 0:
		return true
	case left <= margin/forcedLast:
		return r.overdue(v)
	default:
		return left <= margin && r.overdue(v) && r.heard(v)
	}
}

// heard: no host is waited for of which this server has not heard since its start.
func (r Rotation) heard(v View) bool {
	return !slices.ContainsFunc(v.Hosts, func(h Host) bool { return h.Evidence == nil && r.waited(h, v) })
}

func (l Life) length() time.Duration { return l.Until.Sub(l.From) }
