// Package fleet is what each host last reported: its evidence, when it last gave
// a sign, whether a stream of it is open, and whether it is covered by the
// promises.
//
// Presence is observed and absence never assumed: a host is present until it
// gave no sign for GoneAfter, counted from its last sign or this fleet's
// opening, whichever is later. Evidence is volatile on purpose, a restart loses
// it and asks again; only "covered", a coarse "last seen" and the address are
// records. Who a host is, identity knows; what follows from its evidence,
// authority decides.
package fleet

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

const (
	prefix = "fleet/"
	// answerWithin is how long an older stream of the same identity may take
	// to show that it lives before a newer one replaces it.
	answerWithin = 5 * time.Second
	// seenEvery is how often "last seen" is written while a host reports; the
	// end of a stream is written too.
	seenEvery = time.Hour
	// ForgetAfter is when a silent host is forgotten (DESIGN §5.2).
	ForgetAfter = 90 * 24 * time.Hour
)

// ErrCloned says that another machine uses the same identity right now.
var ErrCloned = errors.New("another machine uses this host's identity right now")

// Config introduces the fleet to the rest of the server.
type Config struct {
	Records *records.Store
	// GoneAfter is how long a host may give no sign.
	GoneAfter time.Duration
	// Alive says whether gossip sees a host; it can keep a host present, never
	// make it gone. Nil: no gossip.
	Alive func(id string) bool
	// Changed is called after evidence or presence of a host changed, Dropped after
	// one was forgotten; they must not block.
	Changed func(id string)
	Dropped func()
}

// Fleet is the table of hosts. Its methods are safe for concurrent use.
type Fleet struct {
	cfg    Config
	opened time.Time

	mu    sync.Mutex
	hosts map[string]*host // by ID
}

// host is what is known of one; guarded by Fleet.mu.
type host struct {
	stream   *Stream // the newest; nil when none is open
	lastSign time.Time
	evidence *certs.Evidence
	received time.Time
	details  Details
	cloned   Clone
	rec      record
	rev      uint64
}

type record struct {
	Covered  bool      `json:"covered"`
	LastSeen time.Time `json:"last_seen"`
	// Generation is the newest that it reported; written with LastSeen.
	Generation uint64 `json:"generation,omitempty"`
	// Address of the newest stream that reported, without port.
	Address string `json:"address,omitempty"`
}

// Details of a report that are no evidence.
type Details struct {
	// Gossip is "ok", "unreachable" or "off".
	Gossip, Version, Address string
	// Skew is the host's clock minus ours, if Timed: the host said what time it is.
	Skew  time.Duration
	Timed bool
	// GossipVersion is of the ring that the host has taken.
	GossipVersion uint64
	// Repairs counts what the agent mended since its start; Contested is what
	// something else there changes again and again, "" for nothing.
	Repairs   uint64
	Contested string
	// Places that the host's runtimes read CAs from.
	Places []Place
}

// Place is a directory of registry certificates that a runtime of a host reads;
// Problem is why it would not find the bundle there, "" when it does.
type Place struct{ Runtime, Dir, Problem string }

// Clone is the last refusal of a second machine with a host's identity; At is
// zero when there was none since the fleet was opened.
type Clone struct {
	At      time.Time
	Address string
}

// State of one host at one moment.
type State struct {
	Covered, Present, Connected bool
	// LastSign is zero when there was none since the fleet was opened.
	LastSign time.Time
	LastSeen time.Time
	// Generation is the newest that the host is known to have had, as of LastSeen.
	Generation uint64
	// Evidence of the newest stream; nil: none. Received goes with it.
	Evidence *certs.Evidence
	Received time.Time
	Details  Details
	// Address is the IP address that the host's newest stream came from, also
	// one before a restart; empty when there was none.
	Address string
	Cloned  Clone
}

// Open loads what is durable of each host.
func Open(cfg Config) (*Fleet, error) {
	f := &Fleet{cfg: cfg, opened: time.Now(), hosts: map[string]*host{}}
	for _, name := range cfg.Records.List(prefix) {
		h := &host{}
		rev, err := cfg.Records.Get(name, &h.rec)
		if err != nil {
			return nil, fmt.Errorf("open fleet: %w", err)
		}
		h.rev = rev
		f.hosts[name[len(prefix):]] = h
	}
	return f, nil
}

// seen writes "last seen" now and then, and the address when it is another one.
// The caller holds mu.
func (f *Fleet) seen(id string, h *host, now time.Time) error {
	address := withoutPort(h.details.Address)
	if h.rev != 0 && now.Sub(h.rec.LastSeen) < seenEvery && h.rec.Address == address {
		return nil
	}
	return f.put(id, h, h.known(now))
}

// known is the record with what the host showed last.
func (h *host) known(now time.Time) record {
	rec := h.rec
	rec.LastSeen = now.UTC()
	if h.evidence != nil { // else it has not reported since this fleet was opened
		rec.Generation = max(rec.Generation, h.evidence.Generation)
		rec.Address = withoutPort(h.details.Address)
	}
	return rec
}

// withoutPort is the IP address in HOST:PORT; empty for another form, like a
// stream in memory.
func withoutPort(hostport string) string {
	at, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return ""
	}
	return at.Addr().Unmap().WithZone("").String()
}

func (f *Fleet) put(id string, h *host, rec record) error {
	rev, err := f.cfg.Records.Put(prefix+id, h.rev, rec)
	if err != nil {
		return err
	}
	h.rec, h.rev = rec, rev
	return nil
}

// Cover marks a host as covered, durably.
func (f *Fleet) Cover(id string) error { return f.setCovered(id, true) }

// Uncover is for a host that enrols: the promises count again from its first
// complete evidence on.
func (f *Fleet) Uncover(id string) error { return f.setCovered(id, false) }

func (f *Fleet) setCovered(id string, covered bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[id]
	if !ok || h.rec.Covered == covered { // not there: removed meanwhile
		return nil
	}
	rec := h.known(time.Now())
	rec.Covered = covered
	return f.put(id, h, rec)
}

// Drop closes a removed host's stream and forgets what it reported.
func (f *Fleet) Drop(id string) error {
	f.mu.Lock()
	h, ok := f.hosts[id]
	if !ok {
		f.mu.Unlock()
		return nil
	}
	delete(f.hosts, id)
	if h.stream != nil {
		h.stream.end()
	}
	var err error
	if h.rev != 0 {
		err = f.cfg.Records.Delete(prefix+id, h.rev)
	}
	f.mu.Unlock()
	f.cfg.Dropped()
	return err
}

// WakeAll asks every open stream to send the newest wanted state.
func (f *Fleet) WakeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hosts {
		if h.stream != nil {
			h.stream.Wake()
		}
	}
}

// Size is how many hosts are known.
func (f *Fleet) Size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.hosts)
}

// State returns what is known of a host now.
func (f *Fleet) State(id string) State {
	alive := f.cfg.Alive != nil && f.cfg.Alive(id)
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[id]
	if !ok {
		return State{Present: alive || now.Sub(f.opened) < f.cfg.GoneAfter}
	}
	if alive { // gossip is a sign too, and counts from when it was last seen
		h.lastSign = now
	}
	last := h.lastSign
	if last.Before(f.opened) {
		last = f.opened
	}
	s := State{
		Covered:    h.rec.Covered,
		Connected:  h.stream != nil,
		LastSign:   h.lastSign,
		LastSeen:   h.rec.LastSeen,
		Generation: h.rec.Generation,
		Received:   h.received,
		Details:    h.details,
		Address:    h.rec.Address,
		Cloned:     h.cloned,
	}
	s.Present = s.Connected || alive || now.Sub(last) < f.cfg.GoneAfter
	if h.evidence != nil {
		e := *h.evidence
		s.Evidence = &e
	}
	return s
}

// host returns the entry of id, making it if needed. The caller holds mu.
func (f *Fleet) host(id string) *host {
	h, ok := f.hosts[id]
	if !ok {
		h = &host{}
		f.hosts[id] = h
	}
	return h
}
