//go:build linux

package fleet_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// relay passes TCP connections on, late or slowly: this kernel has no netem.
type relay struct {
	lis   net.Listener
	to    string
	delay atomic.Int64  // nanoseconds, each way
	limit *rate.Limiter // bytes a second towards the client; nil: none

	wg       sync.WaitGroup
	mu       sync.Mutex // guards what follows
	open     map[net.Conn]struct{}
	accepted []time.Time
	passed   int64 // bytes towards clients
}

// chunkSize is what is read at once; with a limit it is also its burst.
const chunkSize = 64 << 10

// newRelay listens on a free port of the bridge until the test ends.
func newRelay(t *testing.T, f *fleet, to string, delay time.Duration, limit *rate.Limiter) *relay {
	t.Helper()
	lis, err := net.Listen("tcp", f.run.addr(bridgeAddr)+":0")
	must(t, err)
	r := &relay{lis: lis, to: to, limit: limit, open: map[net.Conn]struct{}{}}
	r.delay.Store(int64(delay))
	r.wg.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

func (r *relay) address() string { return r.lis.Addr().String() }

func (r *relay) close() {
	_ = r.lis.Close()
	r.mu.Lock()
	open := r.open
	r.open = nil
	r.mu.Unlock()
	for conn := range open {
		_ = conn.Close()
	}
	r.wg.Wait()
}

func (r *relay) accept() {
	for {
		conn, err := r.lis.Accept()
		if err != nil {
			return // closed
		}
		r.wg.Go(func() { r.serve(conn) })
	}
}

// serve carries one connection until both sides are done.
func (r *relay) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.DialTimeout("tcp", r.to, 5*time.Second)
	if err != nil {
		return // the client sees the end, as it would with a server that is down
	}
	defer func() { _ = server.Close() }()
	if !r.track(client, server) {
		return
	}
	defer r.forget(client, server)
	var both sync.WaitGroup
	both.Go(func() { r.carry(server, client, nil) })
	both.Go(func() { r.carry(client, server, r.limit) })
	both.Wait()
}

func (r *relay) track(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		return false
	}
	r.accepted = append(r.accepted, time.Now())
	for _, c := range conns {
		r.open[c] = struct{}{}
	}
	return true
}

func (r *relay) forget(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.open, c)
	}
}

// chunk is data and when it may go on.
type chunk struct {
	data []byte
	due  time.Time
}

// carry moves one direction; the other is not waited for, but its end is passed
// on as a connection that is closed.
func (r *relay) carry(to, from net.Conn, limit *rate.Limiter) {
	queue := make(chan chunk, 64)
	go func() {
		defer close(queue)
		for {
			buf := make([]byte, chunkSize)
			n, err := from.Read(buf)
			if n > 0 {
				queue <- chunk{buf[:n], time.Now().Add(time.Duration(r.delay.Load()))}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range queue {
		if limit != nil {
			_ = limit.WaitN(context.Background(), len(c.data)) // a chunk is never above the burst
			r.mu.Lock()
			r.passed += int64(len(c.data))
			r.mu.Unlock()
		}
		if wait := time.Until(c.due); wait > 0 {
			<-time.After(wait)
		}
		if _, err := to.Write(c.data); err != nil {
			_ = from.Close() // ends the reader
			for range queue {
				continue
			}
			return
		}
	}
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// openedAfter counts connections that began after a moment.
func (r *relay) openedAfter(at time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, a := range r.accepted {
		if a.After(at) {
			n++
		}
	}
	return n
}

func (r *relay) bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed
}
