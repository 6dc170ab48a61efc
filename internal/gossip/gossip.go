// Package gossip tells the members of one fleet who is there and that something
// new exists. It is the only importer of memberlist.
//
// Gossip carries hints and nothing else: whoever holds a gossip key can forge a
// member, its address and its metadata. A hint may wake somebody or keep a host
// waited for; trust, acknowledgements and decisions travel over gRPC. User
// messages and foreign state are dropped, and what is kept is bounded. All
// traffic is encrypted; a member whose ring misses the key in use is cut off
// until SetKeys gives it the ring.
package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Transport carries packets and streams; nil in Config means UDP and TCP.
// Shutdown must cut open streams and dials, so that Run can end.
type Transport = memberlist.NodeAwareTransport

// MaxMeta is the longest metadata of a member in bytes: four times a Hint. A
// table of the longest must fit into one stream.
const MaxMeta = 64

// Config describes a member.
type Config struct {
	// Name is unique in the fleet: a host's ID, or ServerName. 1 to 128 letters,
	// digits, dots, dashes or underscores.
	Name string

	// Listen is host:port for UDP and TCP; port 0 takes a free one. Not used
	// with a Transport.
	Listen string

	// Advertise is the host or host:port that others dial when it is not the
	// address bound; names are resolved once. Empty: the bound address, or for
	// a wildcard the address of the route to the first peer.
	Advertise string

	// Keys is the ring: 1 to 8 keys of 32 bytes. The first encrypts, all decrypt.
	Keys [][]byte

	// Meta is what the others read in Peer.Meta, at most MaxMeta bytes.
	Meta []byte

	// Peers are the host:port that Run joins; see SetPeers.
	Peers []string

	// Changed is called by Run, without locks, after the table changed: a
	// member came or went, or has other metadata. Changes may be merged into
	// one call. It must be cheap: pass a nudge.
	Changed func()

	// ProbeEvery is how often this member looks whether one other lives. All
	// else that gossip does by the clock keeps its proportion to it: news is
	// passed on five times as often, tables are exchanged thirty times as
	// seldom, and a member that does not answer is dead after ten probes or so
	// in a fleet of 200. Default 1s, for a LAN.
	ProbeEvery time.Duration

	// RejoinEvery is how often, give or take a quarter, Run looks for members
	// that are lost: partitions over 30 probes do not heal otherwise. Default
	// sixty times ProbeEvery.
	RejoinEvery time.Duration

	// Transport replaces the sockets, in simulations.
	Transport Transport

	// Log gets names claimed twice as warnings and memberlist's own lines at
	// debug. Default: nowhere.
	Log *slog.Logger
}

// Member is this process in the fleet. All methods are safe at any time, also
// while Run ends and afterwards.
type Member struct {
	cfg     Config
	list    *memberlist.Memberlist
	ring    *memberlist.Keyring
	table   *table
	net     *gate
	address string        // bound
	dialled string        // what others dial
	probe   time.Duration // memberlist's ProbeInterval
	patient time.Duration // memberlist's ProbeTimeout
	rejoin  chan struct{} // one slot: the peers changed

	// updating is held while memberlist sends an update or leaves. It is a
	// channel because simulated time stands still while a mutex is waited for.
	updating chan struct{}

	mu    sync.Mutex // serializes SetKeys, SetPeers and the start and end of Run
	peers []string
	ran   bool
	ended bool
}

// Start opens the sockets and becomes a member that others can join; it joins
// nobody itself. memberlist starts its goroutines here, so Run must be called:
// it owns the end, also when its context has already ended. An address that
// cannot be bound is an ErrListen.
func Start(cfg Config) (*Member, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	ring, err := newRing(cfg.Keys)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	m := &Member{
		cfg: cfg, ring: ring,
		table:  newTable(cfg.Name, cfg.Meta, cfg.Log),
		rejoin: make(chan struct{}, 1), updating: make(chan struct{}, 1),
		peers: slices.Clone(cfg.Peers),
	}
	behind := cfg.Transport
	if behind == nil {
		s, err := openSockets(cfg.Listen, cfg.Advertise, cfg.Peers)
		if err != nil {
			return nil, err
		}
		behind, m.address = s, s.address()
	}
	m.net, err = newGate(behind, cfg.Keys, func() int { return stateSize * m.table.size() }, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", errors.Join(err, behind.Shutdown()))
	}
	if err := m.create(); err != nil {
		return nil, fmt.Errorf("start gossip as %s: %w", cfg.Name, errors.Join(err, m.net.Shutdown()))
	}
	return m, nil
}

// complete checks a configuration and fills in the defaults.
func (c *Config) complete() error {
	if !validName(c.Name) {
		return fmt.Errorf("name %q: want 1 to %d letters, digits, dots, dashes or underscores", c.Name, maxName)
	}
	if len(c.Meta) > MaxMeta {
		return fmt.Errorf("metadata of %d bytes: at most %d", len(c.Meta), MaxMeta)
	}
	if c.ProbeEvery <= 0 {
		c.ProbeEvery = time.Second
	}
	if c.RejoinEvery <= 0 {
		c.RejoinEvery = 60 * c.ProbeEvery
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// create makes the memberlist over the transport: its defaults for a LAN, with
// the exceptions that follow.
func (m *Member) create() error {
	ip, port, err := m.net.FinalAdvertiseAddr("", 0)
	if err != nil {
		return err
	}
	m.dialled = joinAddress(ip, port)
	if m.address == "" {
		m.address = m.dialled
	}
	c := memberlist.DefaultLANConfig()
	c.Name, c.Transport, c.Keyring = m.cfg.Name, m.net, m.ring
	c.BindPort = port           // what a message without a port means
	c.EnableCompression = false // 78 kB of garbage a packet, to save some 100 bytes
	c.DeadNodeReclaimTime = reclaimAfter
	c.ProbeInterval = m.cfg.ProbeEvery
	c.GossipInterval, c.PushPullInterval = m.cfg.ProbeEvery/5, 30*m.cfg.ProbeEvery
	c.GossipToTheDeadTime, c.QueueCheckInterval = 30*m.cfg.ProbeEvery, 30*m.cfg.ProbeEvery
	c.ProbeTimeout = min(c.ProbeTimeout, m.cfg.ProbeEvery/2)
	c.Delegate, c.Ping = delegate{m}, m.table
	c.Events, c.Alive, c.Conflict = m.table, m.table, m.table
	c.Logger = log.New(debugLog{m.cfg.Log}, "", 0)
	m.probe, m.patient = c.ProbeInterval, c.ProbeTimeout
	m.list, err = memberlist.Create(c)
	return err
}

// reclaimAfter is how long a member must be dead before its name is accepted
// from another address. It only has to outlast messages that are under way; a
// host with a new address should not stay out for longer than that.
const reclaimAfter = 10 * time.Second

// Address is the bound host:port, with the real port for port 0.
func (m *Member) Address() string { return m.address }

// Members returns the other members by name, also those that died or left
// within a day.
func (m *Member) Members() []Peer { return m.table.members() }

// Alive reports whether another member of this name is there. One that is only
// suspected is.
func (m *Member) Alive(name string) bool { return m.table.isAlive(name) }

// Reached reports whether at least one other member is alive.
func (m *Member) Reached() bool { return m.table.countAlive() > 0 }

// SetPeers replaces the host:port that Run joins, and has it join soon. Use it
// when the server says who is there.
func (m *Member) SetPeers(peers []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.Equal(peers, m.peers) {
		return
	}
	m.peers = slices.Clone(peers)
	nudge(m.rejoin)
}

// SetMeta replaces what the others read about this member, at most MaxMeta
// bytes. It returns when the change is queued, without waiting for anybody to
// hear it; once Run ends it has no effect.
func (m *Member) SetMeta(meta []byte) error {
	if len(meta) > MaxMeta {
		return fmt.Errorf("set gossip metadata of %d bytes: at most %d; shorten it", len(meta), MaxMeta)
	}
	m.updating <- struct{}{}
	defer func() { <-m.updating }()
	m.mu.Lock()
	ended := m.ended
	m.mu.Unlock()
	if ended || bytes.Equal(meta, m.table.ownMeta()) {
		return nil
	}
	m.table.setMeta(meta)
	// The update is queued before memberlist waits for it to be sent; running
	// into this shortest of timeouts is its only error.
	_ = m.list.UpdateNode(time.Nanosecond)
	return nil
}

// SetKeys makes the ring equal to keys (see Config.Keys). The new ring holds
// for the next packet; streams that are open finish with the old one.
func (m *Member) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(m.net.use(keys), replaceRing(m.ring, keys)); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	return nil
}

// delegate answers memberlist with this member's metadata and drops the rest.
type delegate struct{ m *Member }

// NodeMeta is asked for by UpdateNode and at the start.
func (d delegate) NodeMeta(int) []byte { return d.m.table.ownMeta() }

// NotifyMsg drops user messages.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts adds nothing to packets.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState adds nothing to streams.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState drops what others add.
func (delegate) MergeRemoteState([]byte, bool) {}

// debugLog passes memberlist's lines on at debug: they report the network's
// weather, not transitions of ours.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(line []byte) (int, error) {
	ctx := context.Background()
	if d.log.Enabled(ctx, slog.LevelDebug) {
		d.log.DebugContext(ctx, "memberlist", "line", string(bytes.TrimSpace(line)))
	}
	return len(line), nil
}
