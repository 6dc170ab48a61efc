package sim

import (
	"context"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

// network is an in-memory network of streams, by address, with links that can
// be cut. Everything in it blocks on channels, so a synctest bubble can tell
// when all is quiet.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	down      map[string]bool                  // hosts whose link is cut
	open      map[string]map[*tracked]struct{} // by host
}

func newNetwork() *network {
	return &network{listeners: map[string]*listener{}, down: map[string]bool{}, open: map[string]map[*tracked]struct{}{}}
}

// buffer of a connection in each direction: a socket's, and made anew for each.
const buffer = 32 << 10

// listener is a bufconn with an address of its own.
type listener struct {
	*bufconn.Listener
	network *network
	address string
}

type address string

func (a address) Network() string { return "memory" }
func (a address) String() string  { return string(a) }

func (l *listener) Addr() net.Addr { return address(l.address) }

func (l *listener) Close() error {
	l.network.mu.Lock()
	if l.network.listeners[l.address] == l {
		delete(l.network.listeners, l.address)
	}
	l.network.mu.Unlock()
	return l.Listener.Close()
}

func (n *network) listen(_, addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, fmt.Errorf("listen %s: address already in use", addr)
	}
	l := &listener{Listener: bufconn.Listen(buffer), network: n, address: addr}
	n.listeners[addr] = l
	return l, nil
}

// dialFrom returns a host's dial function.
func (n *network) dialFrom(host string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		n.mu.Lock()
		l, cut := n.listeners[addr], n.down[host]
		n.mu.Unlock()
		switch {
		case cut:
			return nil, fmt.Errorf("dial %s: network is unreachable", addr)
		case l == nil:
			return nil, fmt.Errorf("dial %s: connection refused", addr)
		}
		conn, err := l.DialContext(ctx)
		if err != nil {
			return nil, err
		}
		c := &tracked{Conn: conn, network: n, host: host}
		n.mu.Lock()
		if n.open[host] == nil {
			n.open[host] = map[*tracked]struct{}{}
		}
		n.open[host][c] = struct{}{}
		n.mu.Unlock()
		return c, nil
	}
}

// tracked is an open connection of a host.
type tracked struct {
	net.Conn
	network *network
	host    string
}

func (c *tracked) Close() error {
	c.network.mu.Lock()
	delete(c.network.open[c.host], c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}

// cut takes a host's link down and breaks its connections, or up again.
func (n *network) cut(host string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[host] = down
	if down {
		for c := range n.open[host] {
			_ = c.Conn.Close()
		}
		delete(n.open, host)
	}
}
