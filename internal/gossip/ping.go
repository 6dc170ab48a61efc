package gossip

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"time"
)

const (
	// pingTries and pingWait bound what UDP may lose, and how far away a member may
	// be: 2.1 s in all.
	pingTries = 3
	pingWait  = 700 * time.Millisecond
)

// ErrUnanswered says that a ping could be sent, and nobody who holds the keys
// answered it.
var ErrUnanswered = errors.New("no answer to a ping")

// Ping asks whether a member answers at host:port, over "udp" or "tcp", and returns
// nil when it does. Who asks becomes no member: the ping names nobody, and neither
// side remembers it. Keys are as in Config. UDP takes at most 2.1 s and a
// look-up of the name; TCP ends with ctx.
func Ping(ctx context.Context, network, address string, keys [][]byte) error {
	p, err := newPing(keys)
	switch {
	case err != nil:
	case network == "udp":
		err = p.overUDP(ctx, address)
	default:
		err = p.overTCP(ctx, address)
	}
	if err != nil {
		return fmt.Errorf("ping gossip at %s over %s: %w", address, network, err)
	}
	return nil
}

// ping is one question; repeated, it is the same one.
type ping struct {
	opener
	number uint32
}

func newPing(keys [][]byte) (*ping, error) {
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	p := &ping{number: rand.Uint32()}
	return p, p.use(keys)
}

// message names no member, which then answers whoever it is, and no sender: the
// answer goes where the packet came from.
func (p *ping) message() []byte {
	return binary.BigEndian.AppendUint32([]byte("\x00\x81\xa5SeqNo\xce"), p.number)
}

// overUDP sends from the address of the route, and takes the answer from anywhere, as
// members do: one with several addresses may answer from another.
func (p *ping) overUDP(ctx context.Context, address string) error {
	route, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	from, to := *route.LocalAddr().(*net.UDPAddr), route.RemoteAddr().(*net.UDPAddr)
	if err := route.Close(); err != nil {
		return err
	}
	from.Port = 0
	conn, err := net.ListenUDP("udp", &from)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // what was heard counts
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	packet := p.seal(p.message(), nil)
	for range pingTries {
		if _, err := conn.WriteToUDP(packet, to); err != nil {
			return err
		}
		if p.hear(conn) == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return ErrUnanswered
}

// hear reads packets for pingWait, until one is the answer.
func (p *ping) hear(conn *net.UDPConn) error {
	if err := conn.SetReadDeadline(time.Now().Add(pingWait)); err != nil {
		return err
	}
	buf := make([]byte, maxPacket+1)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		if message, ok := p.open(nil, buf[:n], nil); ok && p.answered(message) {
			return nil
		}
	}
}

func (p *ping) overTCP(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // what was heard counts
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := p.exchange(conn); err != nil {
		return fmt.Errorf("%w (%w)", ErrUnanswered, cmp.Or(ctx.Err(), err))
	}
	return nil
}

// exchange sends one message and reads one.
func (p *ping) exchange(conn io.ReadWriter) error {
	message := p.message()
	head := binary.BigEndian.AppendUint32([]byte{sealedStream}, uint32(sealOverhead+len(message)))
	if _, err := conn.Write(slices.Concat(head, p.seal(message, head))); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if head[0] != sealedStream || size > maxPacket {
		return errors.New("what answers is no member")
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if message, ok := p.open(nil, answer, head); !ok || !p.answered(message) {
		return errors.New("its keys are not these")
	}
	return nil
}

// answered says whether a message is the answer, with news behind it or without.
func (p *ping) answered(m []byte) bool {
	if !plainPacket(m) {
		return false
	}
	if m[0] == kindSum {
		m = m[sumHead:]
	}
	if m[0] == kindCompound && m[1] > 0 {
		m = m[compoundHead+partHead*int(m[1]):] // the answer leads
	}
	if m[0] != kindAck {
		return false
	}
	ours := false
	readMap(m[1:], func(key []byte, number uint64) bool {
		ours = ours || string(key) == "SeqNo" && number == uint64(p.number)
		return true
	})
	return ours
}
