package gossip

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// backlog is how many packets wait for a member before they are lost, as in a
// socket's buffer.
const backlog = 1024

// Network carries gossip in memory, for simulations: everything blocks on
// channels and timers only, so it works in a testing/synctest bubble when it is
// made inside. Packets and streams arrive at once, in order, or not at all.
// All methods are safe for concurrent use.
type Network struct {
	seed uint64

	mu    sync.Mutex // guards what follows
	loss  float64
	ends  map[string]*end
	down  map[string]bool
	side  map[string]int
	dice  map[route]*rand.Rand // one a route, so that others' traffic changes no draw
	pipes map[*pipe]struct{}   // the dialling side of open streams
}

type route struct{ from, to string }

// NewNetwork makes a network without loss. The same seed loses the same packets
// of a route.
func NewNetwork(seed uint64) *Network {
	return &Network{
		seed: seed, ends: map[string]*end{}, down: map[string]bool{}, side: map[string]int{},
		dice: map[route]*rand.Rand{}, pipes: map[*pipe]struct{}{},
	}
}

// Transport attaches a member at an IP:port. Start reports an address that is
// malformed or taken; it is free again when the member's Run has ended.
func (n *Network) Transport(address string) Transport {
	e := &end{
		n: n, address: canonical(address), packets: make(chan *memberlist.Packet, backlog),
		streams: make(chan net.Conn), done: make(chan struct{}),
	}
	e.at, e.err = netip.ParseAddrPort(address)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ends[e.address] != nil {
		e.err = fmt.Errorf("%w on %s: the address is taken in this network", ErrListen, address)
	}
	if e.err == nil {
		n.ends[e.address] = e
	}
	return e
}

// SetLoss loses this fraction of the packets, 0 to 1; streams are not affected.
func (n *Network) SetLoss(fraction float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = fraction
}

// SetDown cuts an address off, or connects it again. Packets from and to it are
// lost, open streams break and new ones fail. It may be set before a member is
// attached.
func (n *Network) SetDown(address string, down bool) {
	n.mu.Lock()
	n.down[canonical(address)] = down
	n.mu.Unlock()
	n.cut(func(r route) bool { return !n.reaches(r) })
}

// Partition lets an address reach only those on its own side. Addresses on no
// side form one more; without sides the network is whole again.
func (n *Network) Partition(sides ...[]string) {
	n.mu.Lock()
	clear(n.side)
	for i, side := range sides {
		for _, address := range side {
			n.side[canonical(address)] = i + 1
		}
	}
	n.mu.Unlock()
	n.cut(func(r route) bool { return !n.reaches(r) })
}

// Close detaches all members.
func (n *Network) Close() {
	n.mu.Lock()
	ends := make([]*end, 0, len(n.ends))
	for _, e := range n.ends {
		ends = append(ends, e)
	}
	n.mu.Unlock()
	for _, e := range ends {
		_ = e.Shutdown() // never fails
	}
}

// reaches says whether a route is up; the caller holds mu.
func (n *Network) reaches(r route) bool {
	return !n.down[r.from] && !n.down[r.to] && n.side[r.from] == n.side[r.to]
}

// deliverTo returns where one packet of a route arrives, or nil.
func (n *Network) deliverTo(r route) *end {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.reaches(r) || n.lost(r) {
		return nil
	}
	return n.ends[r.to]
}

// connect registers a stream and returns its other end, or nil without a route.
func (n *Network) connect(p *pipe) *end {
	n.mu.Lock()
	defer n.mu.Unlock()
	to := n.ends[p.route.to]
	if to == nil || !n.reaches(p.route) {
		return nil
	}
	n.pipes[p] = struct{}{}
	return to
}

// lost draws for one packet; the caller holds mu.
func (n *Network) lost(r route) bool {
	if n.loss <= 0 {
		return false
	}
	if n.dice[r] == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(r.from + " " + r.to)) // never fails
		n.dice[r] = rand.New(rand.NewPCG(n.seed, h.Sum64()))
	}
	return n.dice[r].Float64() < n.loss
}

// cut breaks the open streams of some routes; which is asked under mu.
func (n *Network) cut(which func(route) bool) {
	n.mu.Lock()
	var broken []*pipe
	for p := range n.pipes {
		if which(p.route) {
			broken = append(broken, p)
		}
	}
	n.mu.Unlock()
	for _, p := range broken {
		_ = p.Close() // never fails; the other side sees it too
	}
}

// end is a member's Transport.
type end struct {
	n       *Network
	address string
	at      netip.AddrPort
	err     error // why it could not be attached
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{} // closed by Shutdown
	once    sync.Once
}

// FinalAdvertiseAddr returns the one address that a member has here.
func (e *end) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return e.at.Addr().Unmap().AsSlice(), int(e.at.Port()), e.err
}

// PacketCh is where packets arrive.
func (e *end) PacketCh() <-chan *memberlist.Packet { return e.packets }

// StreamCh is where streams arrive.
func (e *end) StreamCh() <-chan net.Conn { return e.streams }

// WriteTo is WriteToAddress.
func (e *end) WriteTo(b []byte, addr string) (time.Time, error) {
	return e.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet; that it is lost is no error.
func (e *end) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	now := time.Now()
	select {
	case <-e.done:
		return now, net.ErrClosed
	default:
	}
	to := e.n.deliverTo(route{e.address, a.Addr})
	if to == nil {
		return now, nil
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(e.at), Timestamp: now}
	select {
	case to.packets <- p:
	default: // it does not keep up: lost
	}
	return now, nil
}

// DialTimeout is DialAddressTimeout.
func (e *end) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return e.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream; it fails at once without a route.
func (e *end) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	here, there := net.Pipe()
	p := &pipe{Conn: here, n: e.n, route: route{e.address, a.Addr}}
	to := e.n.connect(p)
	if to == nil {
		return nil, fmt.Errorf("dial %s: no route", a.Addr)
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case to.streams <- there:
		return p, nil
	case <-to.done:
	case <-e.done:
	case <-late.C:
	}
	_ = p.Close() // never fails
	return nil, fmt.Errorf("dial %s: nobody answers", a.Addr)
}

// Shutdown detaches the member and breaks its streams.
func (e *end) Shutdown() error {
	e.once.Do(func() {
		close(e.done)
		e.n.mu.Lock()
		if e.n.ends[e.address] == e {
			delete(e.n.ends, e.address)
		}
		e.n.mu.Unlock()
		e.n.cut(func(r route) bool { return r.from == e.address || r.to == e.address })
	})
	return nil
}

// pipe is the dialling side of a stream.
type pipe struct {
	net.Conn
	n     *Network
	route route
}

// Close never fails; the other side sees the end of the stream.
func (p *pipe) Close() error {
	p.n.mu.Lock()
	delete(p.n.pipes, p)
	p.n.mu.Unlock()
	return p.Conn.Close()
}

// canonical spells an address as memberlist does.
func canonical(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return address
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
}
