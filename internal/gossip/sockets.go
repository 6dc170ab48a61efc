package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"
)

// ErrListen says that the address to listen on cannot be had, mostly because
// another program has it.
var ErrListen = errors.New("cannot listen for gossip")

const (
	// portTries: a free TCP port may be taken on UDP.
	portTries = 10

	// maxInbound and maxStream bound what strangers can make us hold: a stream
	// is read before it is authenticated. 8 MiB carry 20,000 members with
	// small metadata.
	maxInbound = 32
	maxStream  = 8 << 20

	udpPacket = 64 << 10 // the largest there is
	udpBuffer = 2 << 20  // bursts of a large fleet

	// packetPace a second, after a burst, bounds what a flood costs: each packet
	// is decrypted, and whoever holds the key has them handled too. A member
	// gets some thirty a second, whatever the size of the fleet. The kernel drops
	// what is not read in time.
	packetPace  = 2000
	packetBurst = 4000

	acceptWait = 100 * time.Millisecond
)

// sockets is the Transport over UDP and TCP on one port. It differs from
// memberlist's own: Shutdown cuts streams and dials, streams are bounded, and a
// packet does not cost 64 KiB.
type sockets struct {
	tcp       *net.TCPListener
	udp       *net.UDPConn
	advertise netip.AddrPort
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	inbound   chan struct{} // a slot for each stream accepted

	ctx    context.Context // ends with Shutdown
	cancel context.CancelFunc
	wg     sync.WaitGroup // the two loops

	mu   sync.Mutex
	open map[*stream]struct{} // guarded by mu; nil after Shutdown
}

func openSockets(listen, advertise string, peers []string) (*sockets, error) {
	tcp, udp, err := bind(listen)
	if err != nil {
		return nil, fmt.Errorf("%w on %s: %w; free the port or choose another address", ErrListen, listen, err)
	}
	// The kernel may grant less; then bursts lose packets, which gossip survives.
	_ = udp.SetReadBuffer(udpBuffer)
	s := &sockets{
		tcp: tcp, udp: udp,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		inbound: make(chan struct{}, maxInbound), open: map[*stream]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.advertise, err = advertised(s.ctx, tcp.Addr().(*net.TCPAddr).AddrPort(), advertise, peers)
	if err != nil {
		return nil, errors.Join(err, s.Shutdown())
	}
	s.wg.Go(s.accept)
	s.wg.Go(s.receive)
	return s, nil
}

// bind takes the same port for TCP and UDP.
func bind(listen string) (*net.TCPListener, *net.UDPConn, error) {
	a, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return nil, nil, err
	}
	for try := 1; ; try++ {
		tcp, err := net.ListenTCP("tcp", a)
		if err != nil {
			return nil, nil, err
		}
		port := tcp.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: a.IP, Port: port, Zone: a.Zone})
		if err == nil {
			return tcp, udp, nil
		}
		if err := errors.Join(err, tcp.Close()); a.Port != 0 || try == portTries {
			return nil, nil, err
		}
	}
}

func (s *sockets) address() string { return s.tcp.Addr().String() }

// FinalAdvertiseAddr returns the address decided when the sockets were opened.
func (s *sockets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return s.advertise.Addr().AsSlice(), int(s.advertise.Port()), nil
}

// PacketCh is where packets arrive.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh is where streams arrive.
func (s *sockets) StreamCh() <-chan net.Conn { return s.streams }

// WriteTo is WriteToAddress.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet. After Shutdown it fails with a plain error:
// memberlist takes a net.OpError for the other side's failure and waits.
func (s *sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if s.ctx.Err() != nil {
		return time.Time{}, net.ErrClosed
	}
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = s.udp.WriteToUDPAddrPort(b, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
	return time.Now(), err
}

// DialTimeout is DialAddressTimeout.
func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return s.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream; Shutdown cuts it, also while it dials.
func (s *sockets) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		return nil, os.ErrDeadlineExceeded
	}
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(s.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	return s.track(conn, func() {})
}

// Shutdown closes the sockets, cuts all streams and waits for its loops.
func (s *sockets) Shutdown() error {
	s.cancel()
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for st := range open {
		_ = st.Close() // whoever uses it sees the cut
	}
	s.wg.Wait()
	return err
}

func (s *sockets) accept() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(acceptWait): // out of descriptors, most likely
				continue
			}
		}
		select {
		case s.inbound <- struct{}{}:
		default:
			_ = conn.Close() // the other side tries again later
			continue
		}
		st, err := s.track(conn, func() { <-s.inbound })
		if err != nil {
			return
		}
		select {
		case s.streams <- st:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *sockets) receive() {
	buf := make([]byte, udpPacket)
	pace := rate.NewLimiter(packetPace, packetBurst)
	for pace.Wait(s.ctx) == nil {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil || n == 0 {
			continue // an error of one packet, or of the closed socket
		}
		p := &memberlist.Packet{
			Buf:       append([]byte(nil), buf[:n]...),
			From:      net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addr().Unmap(), from.Port())),
			Timestamp: time.Now(),
		}
		select {
		case s.packets <- p:
		case <-s.ctx.Done():
		}
	}
}

// stream is a TCP connection that Shutdown cuts and that reads so much and no
// more.
type stream struct {
	net.Conn
	left   int // bytes that may still be read
	once   sync.Once
	closed func()
}

func (s *sockets) track(conn net.Conn, release func()) (*stream, error) {
	st := &stream{Conn: conn, left: maxStream}
	st.closed = func() {
		s.mu.Lock()
		delete(s.open, st)
		s.mu.Unlock()
		release()
	}
	s.mu.Lock()
	ended := s.open == nil
	if !ended {
		s.open[st] = struct{}{}
	}
	s.mu.Unlock()
	if ended {
		return nil, errors.Join(net.ErrClosed, st.Close())
	}
	return st, nil
}

// Read is used by one goroutine at a time.
func (st *stream) Read(p []byte) (int, error) {
	if st.left <= 0 {
		return 0, fmt.Errorf("gossip stream is longer than %d bytes", maxStream)
	}
	n, err := st.Conn.Read(p[:min(len(p), st.left)])
	st.left -= n
	return n, err
}

// Close may be called more than once.
func (st *stream) Close() error {
	err := net.ErrClosed
	st.once.Do(func() {
		err = st.Conn.Close()
		st.closed()
	})
	return err
}
