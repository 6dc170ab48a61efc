package edge

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

const (
	// gathered is how much of a large answer goes to the kernel at once (bytes): one
	// copySize with its header and what encryption adds. crypto/tls makes a system
	// call for each record of 16 KiB, which cost a quarter of a blob's processor time.
	gathered = copySize + 8<<10
	// lastPart (bytes) of what is gathered is written by itself and takes the rest
	// along. It is more than net/http holds back of what is written to it (6 KiB).
	lastPart = 16 << 10
	// worthGathering is from which length on (bytes) there is more than one record.
	worthGathering = 2 * lastPart
)

// gathering has a connection's records go to the kernel many at a time.
//
// Nothing is held back but within one Write of a response: whatever is sent after it,
// were it an alert, takes along what is there. And all that waits for the client is
// within a Write of crypto/tls, whose Close cuts that short and waits for it only
// where it does not know of it.
type gathering struct {
	on atomic.Bool
	// buffer is what was not sent yet; nil: nothing. Only write looks at it, of which
	// crypto/tls makes one at a time.
	buffer *gatheringBuffer
}

type gatheringBuffer struct {
	used int
	data [gathered]byte
}

var gatheringBuffers = sync.Pool{New: func() any { return new(gatheringBuffer) }}

// write sends p behind what is there, or keeps it for a moment.
func (g *gathering) write(conn net.Conn, p []byte) (int, error) {
	on := g.on.Load()
	if !on && g.buffer == nil {
		return conn.Write(p)
	}
	if g.buffer == nil {
		g.buffer, _ = gatheringBuffers.Get().(*gatheringBuffer)
	}
	for rest := p; len(rest) > 0; {
		n := copy(g.buffer.data[g.buffer.used:], rest)
		g.buffer.used += n
		rest = rest[n:]
		if g.buffer.used == gathered {
			if err := g.buffer.send(conn); err != nil {
				return 0, err
			}
		}
	}
	if on {
		return len(p), nil
	}
	if err := g.buffer.send(conn); err != nil {
		return 0, err
	}
	gatheringBuffers.Put(g.buffer)
	g.buffer = nil
	return len(p), nil
}

// send sends what is there. After an error crypto/tls sends no more.
func (b *gatheringBuffer) send(conn net.Conn) error {
	if b.used == 0 {
		return nil
	}
	_, err := conn.Write(b.data[:b.used])
	b.used = 0
	return err
}

// writeTo writes p in few system calls; all of it is on its way when that returns.
func (g *gathering) writeTo(w http.ResponseWriter, p []byte) (int, error) {
	first := len(p) - lastPart
	g.on.Store(true)
	n, err := w.Write(p[:first])
	g.on.Store(false)
	if err != nil {
		return n, err
	}
	last, err := w.Write(p[first:])
	return n + last, err
}

// gatheringOf is that of a request's connection; nil without one.
func gatheringOf(r *http.Request) *gathering {
	secure, ok := connOf(r).(*tls.Conn)
	if !ok {
		return nil
	}
	raw, ok := secure.NetConn().(*listened)
	if !ok {
		return nil
	}
	return &raw.gathering
}
