package edge

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// newcomerLimit is how long a stop waits for the first request of connections that are
// open already. net/http drops those that have sent nothing after as long.
const newcomerLimit = 5 * time.Second

// newcomers are connections whose first request did not reach the edge yet. Shutdown of
// net/http lets go of a request that comes after it was called, even on a connection that
// was accepted before: a client in its handshake would see the connection end. So a stop
// waits for them first.
type newcomers struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	none  chan struct{} // closed when the last one is gone; nil: nobody waits
}

// saw follows a connection.
func (n *newcomers) saw(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.conns == nil {
			n.conns = map[net.Conn]struct{}{}
		}
		n.conns[conn] = struct{}{}
	case http.StateActive:
		// net/http has a request, but still looks whether it is shut down.
	default:
		n.known(conn)
	}
}

// known ends what conn is waited for: its request is here, or it is gone.
func (n *newcomers) known(conn net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, conn)
	if len(n.conns) == 0 && n.none != nil {
		close(n.none)
		n.none = nil
	}
}

// wait returns when none is left, or its time is over. No other may come any more.
func (n *newcomers) wait(ctx context.Context) {
	n.mu.Lock()
	if len(n.conns) == 0 {
		n.mu.Unlock()
		return
	}
	none := make(chan struct{})
	n.none = none
	n.mu.Unlock()
	limit := time.NewTimer(newcomerLimit)
	defer limit.Stop()
	select {
	case <-none:
	case <-limit.C:
	case <-ctx.Done():
	}
}
