package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"
)

const (
	// maxPacket: members send 1,400 bytes and a checksum.
	maxPacket = 1500

	// packetRate a second is what a member takes, after up to packetBurst at
	// once: the worst packets cost 0.4 ms. In a fleet of any size about 20 a
	// second arrive: three members gossip to it every fifth of a second, and one
	// or two probe it.
	packetRate  = 500
	packetBurst = 2000

	// maxStream holds a full table with the longest names and metadata. Streams
	// of others hold up to shortStream each, and maxLong of them more, in either
	// direction: so strangers occupy 26 MiB in maxInbound, and members, of whose
	// exchanges memberlist makes some six copies, not many times as much.
	maxStream   = 6 << 20
	shortStream = 64 << 10 // a table of 500 hosts
	maxLong     = 4

	// exchangeRate bounds the bytes a second that streams of others make us read
	// and answer, after up to exchangeBurst at once, each counted as at least
	// minExchange; 1 MiB costs some 25 ms. In a fleet of 10,000 an exchange takes
	// 2.5 MB, every five minutes; of hosts that join all at once the server
	// answers twelve a second, and the others try again.
	exchangeRate  = 16 << 20
	exchangeBurst = 64 << 20
	minExchange   = 16 << 10

	// stateSize is what a host takes in an exchange.
	stateSize = 130

	// warnEvery: a flood is one line of the log, and another while it lasts.
	warnEvery = 10 * time.Minute
)

var (
	errUnsealed = errors.New("gossip stream refused: no key of the ring opens it")
	errNoMember = errors.New("gossip stream refused: it does not hold what members send")
	errLong     = fmt.Errorf("gossip stream refused: it takes more than %d bytes, or more than %d while %d others do", maxStream, shortStream, maxLong)
	errTooMany  = errors.New("gossip stream refused: there are too many; the other side tries again")
)

// gate is a Transport that lets through to memberlist only what a member would
// send, and so much of it that whoever holds the gossip key cannot keep this
// process busy. What the key does not open costs nothing of that; but whoever
// holds it can use all of it up, and then honest members are not heard either and
// look dead to gossip. No promise rests on it: a hint that is lost, or a member
// that seems dead, changes nothing that streams and polls to the server carry.
type gate struct {
	Transport
	opener
	log    *slog.Logger
	answer func() int // bytes, about, of our side of an exchange

	packets   chan *memberlist.Packet
	streams   chan net.Conn
	pace      *rate.Limiter // of packets
	exchanges *rate.Limiter // of bytes
	long      chan struct{} // a slot for each stream of others above shortStream
	warned    rate.Sometimes

	done chan struct{} // closed by Shutdown
	once sync.Once
	wg   sync.WaitGroup // the two loops
}

// newGate starts two loops, which Shutdown ends.
func newGate(behind Transport, keys [][]byte, answer func() int, log *slog.Logger) (*gate, error) {
	g := &gate{
		Transport: behind, log: log, answer: answer,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		pace: rate.NewLimiter(packetRate, packetBurst), exchanges: rate.NewLimiter(exchangeRate, exchangeBurst),
		long: make(chan struct{}, maxLong), warned: rate.Sometimes{Interval: warnEvery},
		done: make(chan struct{}),
	}
	if err := g.use(keys); err != nil {
		return nil, err
	}
	g.wg.Go(g.passPackets)
	g.wg.Go(g.passStreams)
	return g, nil
}

// PacketCh is where packets of members arrive.
func (g *gate) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh is where streams arrive; what they hold shows when they are read.
func (g *gate) StreamCh() <-chan net.Conn { return g.streams }

// DialTimeout is DialAddressTimeout.
func (g *gate) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream whose answer must be a member's.
func (g *gate) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := g.Transport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	return &vetted{Conn: conn, gate: g, dialled: true}, nil
}

// Shutdown ends the transport behind it too, and waits for the loops.
func (g *gate) Shutdown() error {
	g.once.Do(func() { close(g.done) })
	err := g.Transport.Shutdown()
	g.wg.Wait()
	return err
}

func (g *gate) passPackets() {
	buf := make([]byte, 0, maxPacket)
	for {
		select {
		case p := <-g.Transport.PacketCh():
			if !g.passes(p.Buf, buf) {
				continue
			}
			select {
			case g.packets <- p:
			case <-g.done:
				return
			}
		case <-g.done:
			return
		}
	}
}

func (g *gate) passes(packet, buf []byte) bool {
	if len(packet) > maxPacket {
		return false
	}
	message, ok := g.open(buf, packet, nil)
	if !ok || !plainPacket(message) {
		return false
	}
	if !g.pace.Allow() {
		g.flooded()
		return false
	}
	return true
}

func (g *gate) passStreams() {
	for {
		select {
		case conn := <-g.Transport.StreamCh():
			select {
			case g.streams <- &vetted{Conn: conn, gate: g}:
			case <-g.done:
				_ = conn.Close() // nobody reads it any more
				return
			}
		case <-g.done:
			return
		}
	}
}

func (g *gate) flooded() {
	g.warned.Do(func() {
		g.log.Warn("gossip flood: more than a fleet sends, by somebody who holds the gossip key; the rest is dropped. Find the host and remove it, or run: trustcast fleet roll-gossip-key")
	})
}

// vetted is a stream that holds one message of a member, or nothing.
type vetted struct {
	net.Conn
	gate    *gate
	dialled bool // by us: an answer

	message *bytes.Reader // nil until it has been received
	refused error         // why there is none
	long    bool          // has one of gate.long
	once    sync.Once
}

// Read is used by one goroutine at a time.
func (v *vetted) Read(p []byte) (int, error) {
	if v.message == nil && v.refused == nil {
		sealed, err := v.receive()
		v.message, v.refused = bytes.NewReader(sealed), err
	}
	if v.refused != nil {
		return 0, v.refused
	}
	n, err := v.message.Read(p)
	if v.message.Len() == 0 {
		v.message.Reset(nil) // memberlist has its own copy
	}
	return n, err
}

// receive reads a whole message and returns it as it came, sealed.
func (v *vetted) receive() ([]byte, error) {
	var sealed bytes.Buffer // grows by what arrives, not by what is claimed
	if _, err := io.CopyN(&sealed, v.Conn, streamHead); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(sealed.Bytes()[1:])
	switch {
	case sealed.Bytes()[0] != sealedStream || size <= sealOverhead:
		return nil, errUnsealed
	case size > maxStream || size > shortStream && !v.mayBeLong():
		return nil, errLong
	}
	if _, err := io.CopyN(&sealed, v.Conn, int64(size)); err != nil {
		return nil, err
	}
	whole := sealed.Bytes()
	message, ok := v.gate.open(nil, whole[streamHead:], whole[:streamHead])
	switch {
	case !ok:
		return nil, errUnsealed
	case !plainStream(message, v.dialled):
		return nil, errNoMember
	case !v.dialled:
		return whole, v.afford(message)
	}
	return whole, nil
}

// afford takes what a stream of others costs, our answer included.
func (v *vetted) afford(message []byte) error {
	answer := 0
	if message[0] == kindPushPull {
		answer = v.gate.answer()
	}
	if answer > shortStream && !v.mayBeLong() {
		return errLong
	}
	if !v.gate.exchanges.AllowN(time.Now(), max(len(message)+answer, minExchange)) {
		v.gate.flooded()
		return errTooMany
	}
	return nil
}

// mayBeLong takes a slot, which Close gives back. Answers to our own streams need
// none: we dial few at a time.
func (v *vetted) mayBeLong() bool {
	if v.dialled || v.long {
		return true
	}
	select {
	case v.gate.long <- struct{}{}:
		v.long = true
		return true
	default:
		return false
	}
}

// Close may be called more than once, by who reads.
func (v *vetted) Close() error {
	v.once.Do(func() {
		if v.long {
			<-v.gate.long
		}
	})
	return v.Conn.Close()
}
