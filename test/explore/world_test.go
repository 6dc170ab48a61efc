package explore

import (
	"slices"
	"time"

	"github.com/trustcast/trustcast/server/authority"
)

// maxHosts is how many hosts a world can have.
const maxHosts = 3

// Time is abstract: it stands still, and what it brings (a deadline, the end of a
// CA) are events.
var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	tick     = time.Minute
	patience = 10 * time.Minute
	caLife   = 2 * 365 * 24 * time.Hour
)

// ca is a registry CA, by the number that the record gives it. A restored record
// gives numbers again: what hosts have from the time that it forgot is foreign.
type ca = uint8

const foreign ca = 64

// roots are the CAs of a bundle, the older first; 0 for none.
type roots struct{ a, b ca }

func rootsOf(bundle []authority.CAID) roots {
	var r roots
	for _, id := range bundle {
		switch c := ca(id); { //nolint:gosec // a walk makes fewer than 64
		case r.a == 0:
			r.a = c
		case c < r.a:
			r.a, r.b = c, r.a
		default:
			r.b = c
		}
	}
	return r
}

func (r roots) has(c ca) bool { return c != 0 && (r.a == c || r.b == c) }

// offer is a wanted state on its way to a host; see none.
type offer struct {
	rev, number, gen uint32
	bundle           roots
	// active and next issued the leaves, version says which of theirs.
	active, next ca
	version      uint8
}

// report is evidence on its way to the server; seq 0 is none.
type report struct {
	seq, rev, number, gen uint32
	disk, solo            roots
	offline               bool
	probe, live           outcome
	// broken and refuses are what the machine was like meanwhile. The server does
	// not see them.
	broken, refuses bool
}

// outcome of a handshake.
type outcome uint8

const (
	notTried outcome = iota
	accepted
	refused
	other // unreachable, or another certificate: holds nothing
)

// host is a machine, and what the server knows of it.
type host struct {
	name string
	// What the fleet's record says.
	covered, removed bool
	known            uint32
	// What the server has seen since its start.
	present, stream, greeted, aged bool
	evidence                       report
	// What the machine has. trusted is durable, leaves says that the agent knows
	// those of trusted as well.
	trusted offer
	leaves  bool
	disk    roots
	// shown is the newest revision that it ever took.
	shown uint32
	// drifted: somebody took the file away; broken: something beside it makes
	// Docker fail; refuses: the handshakes fail here.
	drifted, broken, refuses bool
	seq                      uint32
	down                     [2]offer
	up                       [2]report
	// kept is what the backup has of it.
	kept kept
}

type kept struct {
	exists, covered, removed bool
	known                    uint32
}

// since is all that will ever count of a revision and a rotation's number: that it
// is not older than the switch, and of this rotation.
type since struct{ switched, current bool }

func (w *world) since(rev, number, gen uint32) since {
	return since{switched: uint64(rev) >= w.rec.SwitchedRev, current: uint64(number) == w.rec.Number && uint64(gen) == w.rec.Generation}
}

// sameOffer: what differs does not count any more.
func (s scope) sameOffer(w *world, a, b offer) bool {
	if !s.exact && w.since(a.rev, a.number, a.gen) == w.since(b.rev, b.number, b.gen) {
		a.rev, a.number = b.rev, b.number
	}
	return a == b
}

func (s scope) sameReport(w *world, a, b report) bool {
	if !s.exact && w.since(a.rev, a.number, a.gen) == w.since(b.rev, b.number, b.gen) {
		a.rev, a.number = b.rev, b.number
	}
	a.seq = b.seq
	return a == b
}

// pair is what the edge presents.
type pair struct {
	authority.Serving
	nextChain []authority.Link
	version   uint8
}

// world is everything at one moment. Its slices are shared and never changed.
type world struct {
	rec     authority.Rotation
	version uint8 // of the leaves that the record names
	edge    pair
	// published: the edge has been given the record.
	published bool
	// late: the deadline is over.
	late bool
	// worn says how near its end the active CA pressed is: 1 in its last days, 2
	// in the last of them, 3 over. All CAs up to ended are over.
	pressed, ended ca
	worn           uint8
	// astray: an old copy of the server was started, and nothing is promised.
	astray bool
	backup *backup
	hosts  [maxHosts]host
	left   budget
}

type backup struct {
	rec     authority.Rotation
	version uint8
}

// budget bounds what would otherwise go on for ever.
type budget struct {
	rotations, compromises, rollbacks, skips, renewals        uint8
	crashes, agentCrashes, absences, losses, repeats, agings  uint8
	drifts, refusals, removals, enrolments, ends, nextRefused uint8
	backups, restores, copies, hurries                        uint8
}

// all are its parts.
func (b *budget) all() []*uint8 {
	return []*uint8{
		&b.rotations, &b.compromises, &b.rollbacks, &b.skips, &b.renewals,
		&b.crashes, &b.agentCrashes, &b.absences, &b.losses, &b.repeats, &b.agings,
		&b.drifts, &b.refusals, &b.removals, &b.enrolments, &b.ends, &b.nextRefused,
		&b.backups, &b.restores, &b.copies, &b.hurries,
	}
}

// scope is what a walk explores.
type scope struct {
	name  string
	hosts int
	// down and up are how many messages may be on their way to and from each host;
	// 0: they arrive at once.
	down, up int
	// whole: accepting and installing are one event.
	whole bool
	// fresh: the hosts have joined and reported nothing yet. Else the promises
	// cover them from the start.
	fresh bool
	// adopted: the registry was taken over, so the first CA signs no link.
	adopted bool
	exact   bool // numbers count, not only their order: for records that number anew
	budget  budget
	// least is how many worlds it has at the least; cut: more than may be seen.
	least int
	cut   bool
}

var names = [...]string{"web-1", "web-2", "web-3", "web-1b", "web-2b", "web-3b"}

// start is a fleet before its first rotation.
func (s scope) start() world {
	w := world{rec: authority.First(), left: s.budget}
	if s.adopted {
		w.rec = authority.Taken()
	}
	w.publish(true)
	m := machine{scope: s, code: realCode()}
	for i := range s.hosts {
		h := &w.hosts[i]
		*h = host{name: names[i], present: true, stream: true}
		if !s.fresh {
			m.turn(&w, h)
			m.coverNow(&w, h)
		}
	}
	return w
}

// none: there is no such offer. Generation 0 is an adopted registry's.
func (o *offer) none() bool { return o.rev == 0 }

func (h *host) exists() bool { return h.name != "" }

func (w *world) skipped(h *host) bool { return slices.Contains(w.rec.Skipped, h.name) }

func (w *world) leaving(h *host) bool { return slices.Contains(w.rec.Uncover, h.name) }

// promised: the promises cover this host now.
func (w *world) promised(h *host) bool {
	return h.exists() && h.covered && !h.removed && !w.leaving(h)
}

// over: the certificate of a link has ended.
func (w *world) over(l authority.Link) bool { return w.spent(ca(l.By)) } //nolint:gosec // fewer than 64

// forged: nobody has the key that a link would be signed with.
func (w *world) forged(l authority.Link) bool { return w.rec.Adopted != 0 && l.By == w.rec.Adopted }

func (w *world) spent(c ca) bool {
	return c != 0 && (c <= w.ended || c == w.pressed && w.worn == 3)
}

// verifies says whether a client that has a disk accepts a leaf of issuer with a
// chain beside it: it has the issuer, or a CA from which links lead to it.
// usable says which links count. crypto/x509 is tied to this by a test.
func verifies(disk roots, issuer ca, chain []authority.Link, usable func(authority.Link) bool) bool {
	known := uint64(1)<<disk.a | uint64(1)<<disk.b
	for range chain {
		for _, l := range chain {
			if known&(1<<l.By) != 0 && (usable == nil || usable(l)) {
				known |= 1 << l.CA
			}
		}
	}
	return issuer != 0 && known&(1<<issuer) != 0
}
