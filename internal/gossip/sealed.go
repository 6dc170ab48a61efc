package gossip

import (
	"errors"
	"net"
)

// memberlist panics over two things that only a holder of the key can make: a
// stream that opens to nothing, and bad padding, which the first version of its
// encryption has. Both show before they are opened, and no member sends them.
const (
	sealVersion  = 1           // AES-GCM without padding
	sealOverhead = 1 + 12 + 16 // version, nonce, tag
	sealedStream = 10          // the kind of message that each stream begins with
	streamHead   = 1 + 4 + 1   // kind, length, version
)

var errUnsealed = errors.New("gossip stream refused: it does not begin as a member's does")

// wellSealed says whether a packet looks like a member's.
func wellSealed(packet []byte) bool {
	return len(packet) > sealOverhead && packet[0] == sealVersion
}

// sealedConn reads nothing from a stream that does not begin as a member's.
type sealedConn struct {
	net.Conn
	head []byte // what was read of the first streamHead bytes
}

// Read is used by one goroutine at a time.
func (c *sealedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if missing := streamHead - len(c.head); missing > 0 {
		c.head = append(c.head, p[:min(n, missing)]...)
	}
	if len(c.head) == streamHead && !c.begunWell() {
		return 0, errUnsealed
	}
	return n, err
}

func (c *sealedConn) begunWell() bool {
	long := c.head[1] > 0 || c.head[2] > 0 || c.head[3] > 0 || c.head[4] > sealOverhead
	return c.head[0] == sealedStream && long && c.head[5] == sealVersion
}
