package gossip

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	maxName = 128

	// maxMembers bounds what a holder of the key can make us remember: twice
	// the largest fleet we measured for, some 20 MB with full metadata.
	maxMembers = 20_000

	// forgetAfter is how long the dead are remembered, to look for them again.
	forgetAfter = 24 * time.Hour

	// reapAfter, and one probe a member more, is when memberlist has forgotten
	// a dead member itself: only then its place can be given away.
	reapAfter = time.Minute

	// sweepEvery bounds the work that a full table causes a message.
	sweepEvery = time.Second
)

var errFull = fmt.Errorf("the table holds %d members already", maxMembers)

// Peer is another member as this one sees it.
type Peer struct {
	Name    string
	Address string // host:port it advertises
	Meta    []byte
	Alive   bool
}

type entry struct {
	address  string
	meta     []byte
	alive    bool
	died     time.Time // when alive became false
	conflict bool      // a second claim of the name has been logged
}

// table is what memberlist's callbacks said. They run under memberlist's own
// lock and may never call back into it, so they copy and nudge.
type table struct {
	self    string
	log     *slog.Logger
	changed chan struct{} // one slot: see Config.Changed
	died    chan struct{} // one slot: somebody died or left

	mu       sync.Mutex // guards what follows
	meta     []byte     // this member's own
	entries  map[string]*entry
	alive    int  // entries alive
	conflict bool // a second claim of our own name has been logged
	swept    time.Time
	pinged   time.Time // when the last probe was answered
	closed   bool      // nothing changes any more: late timers of memberlist
}

func newTable(self string, meta []byte, log *slog.Logger) *table {
	return &table{self: self, meta: bytes.Clone(meta), log: log, changed: make(chan struct{}, 1), died: make(chan struct{}, 1), entries: map[string]*entry{}}
}

// NotifyAlive admits a member or refuses what it claims.
func (t *table) NotifyAlive(n *memberlist.Node) error {
	switch {
	case !validName(n.Name):
		return errors.New("bad name")
	case len(n.Meta) > MaxMeta:
		return errors.New("metadata too long")
	case !validAddress(n.Addr, n.Port):
		return errors.New("bad address")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.entries[n.Name]; known || n.Name == t.self || len(t.entries) < maxMembers {
		return nil
	}
	if time.Since(t.swept) >= sweepEvery {
		t.forget(reapAfter + time.Duration(len(t.entries))*time.Second)
		t.swept = time.Now()
	}
	if len(t.entries) >= maxMembers {
		return errFull
	}
	return nil
}

// NotifyJoin records a member that is new or back, maybe at another address.
func (t *table) NotifyJoin(n *memberlist.Node) { t.record(n, true) }

// NotifyUpdate records other metadata.
func (t *table) NotifyUpdate(n *memberlist.Node) { t.record(n, true) }

// NotifyLeave records a member that died or left.
func (t *table) NotifyLeave(n *memberlist.Node) { t.record(n, false) }

func (t *table) record(n *memberlist.Node, alive bool) {
	if n.Name == t.self {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	e := t.entries[n.Name]
	if e == nil {
		e = &entry{}
		t.entries[n.Name] = e
	}
	switch {
	case alive && !e.alive:
		t.alive++
		e.conflict = false
	case !alive && e.alive:
		t.alive--
		e.died = time.Now()
		nudge(t.died)
	}
	e.address, e.meta, e.alive = joinAddress(n.Addr, int(n.Port)), bytes.Clone(n.Meta), alive
	nudge(t.changed)
}

// nudge fills a one-slot channel; when it is full, somebody will look anyway.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// NotifyConflict says once that a name is claimed from a second address.
func (t *table) NotifyConflict(existing, other *memberlist.Node) {
	t.mu.Lock()
	said := &t.conflict
	if e := t.entries[existing.Name]; e != nil {
		said = &e.conflict
	}
	first := !*said && !t.closed
	*said = true
	t.mu.Unlock()
	if first {
		t.log.Warn("two members use one gossip name; the second is ignored: stop one of them or enrol it anew",
			"name", existing.Name, "address", existing.Address(), "second", other.Address())
	}
}

// AckPayload adds nothing to answers.
func (t *table) AckPayload() []byte { return nil }

// NotifyPingComplete notes that no probe is unanswered; see Member.settle.
func (t *table) NotifyPingComplete(*memberlist.Node, time.Duration, []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pinged = time.Now()
}

func (t *table) lastPing() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pinged
}

func (t *table) ownMeta() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.meta)
}

func (t *table) setMeta(meta []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.meta = bytes.Clone(meta)
}

func (t *table) members() []Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := make([]Peer, 0, len(t.entries))
	for name, e := range t.entries {
		peers = append(peers, Peer{Name: name, Address: e.address, Meta: bytes.Clone(e.meta), Alive: e.alive})
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return peers
}

func (t *table) isAlive(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[name]
	return e != nil && e.alive
}

func (t *table) countAlive() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.alive
}

// size counts the dead too.
func (t *table) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// lost forgets who has been dead for too long, and returns where members are
// alive and where up to n of the dead, drawn at random, were last.
func (t *table) lost(n int) (alive map[string]bool, dead []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(forgetAfter)
	alive = make(map[string]bool, t.alive)
	for _, e := range t.entries {
		if e.alive {
			alive[e.address] = true
		} else {
			dead = append(dead, e.address)
		}
	}
	rand.Shuffle(len(dead), func(i, j int) { dead[i], dead[j] = dead[j], dead[i] })
	return alive, dead[:min(n, len(dead))]
}

// forget drops who has been dead for longer than age; the caller holds mu.
func (t *table) forget(age time.Duration) {
	for name, e := range t.entries {
		if !e.alive && time.Since(e.died) > age {
			delete(t.entries, name)
		}
	}
}

func validName(name string) bool {
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '-', r == '_':
		default:
			return false
		}
	}
	return name != "" && len(name) <= maxName
}

func validAddress(ip net.IP, port uint16) bool {
	return ip.To16() != nil && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.Equal(net.IPv4bcast) && port != 0
}

func joinAddress(ip net.IP, port int) string {
	return net.JoinHostPort(ip.String(), strconv.Itoa(port))
}
