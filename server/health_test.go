package server

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/test/bufconn"
)

// TestHealthPortIsBounded: whoever opens connections to the loopback port and says
// nothing, or pauses, loses them; meanwhile no more than a few are taken.
func TestHealthPortIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &countedListener{Listener: bufconn.Listen(4096)}
		n := &node{metrics: prometheus.NewRegistry(), listen: listeners{http: counted}}
		drained, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- n.serveHTTP(drained) }()
		dial := func() net.Conn {
			t.Helper()
			conn, err := counted.Listener.(*bufconn.Listener).DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		ask := func(conn net.Conn) {
			t.Helper()
			if _, err := io.WriteString(conn, "GET /livez?exclude=loops HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("%v, %v", resp, err)
			}
		}
		begin := time.Now()
		first := dial()
		ask(first)
		if took := time.Since(begin); took != 0 {
			t.Errorf("an answer took %s with nobody else there", took)
		}
		for range httpConns - 1 {
			dial()
		}
		synctest.Wait()
		last := make(chan net.Conn)
		go func() { last <- dial() }()
		synctest.Wait()
		if got := counted.n.Load(); got != httpConns {
			t.Errorf("%d connections are open, want %d", got, httpConns)
		}
		ask(<-last) // once the silent ones are closed
		if took := time.Since(begin); took != httpHeaderLimit {
			t.Errorf("the next had to wait %s, want %s", took, httpHeaderLimit)
		}
		if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a connection that pauses: %v", err)
		}
		if took := time.Since(begin); took != httpLimit {
			t.Errorf("a connection that pauses is closed after %s, want %s", took, httpLimit)
		}
		close(drained)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// countedListener counts the connections that were accepted and are not closed.
type countedListener struct {
	net.Listener
	n atomic.Int64
}

func (l *countedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
		conn = &countedConn{Conn: conn, l: l}
	}
	return conn, err
}

type countedConn struct {
	net.Conn
	l      *countedListener
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if !c.closed.Swap(true) {
		c.l.n.Add(-1)
	}
	return c.Conn.Close()
}

// TestHangingLoopIsNoLife: when the loop that rotates and renews does not come round, the
// supervisor gets no sign of life and /livez says so. The control is the loop running.
func TestHangingLoopIsNoLife(t *testing.T) {
	for _, runs := range []bool{true, false} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			p := newPopulation(t, dir, 0)
			defer p.end()
			if !runs {
				p.stop() // its loops end; nobody has said that the server stops
			}
			var signs atomic.Int64
			done, ended := make(chan struct{}), make(chan error, 1)
			p.node.cfg.Supervisor = Supervisor{Alive: func() { signs.Add(1) }, Every: 10 * time.Second}
			go func() { ended <- p.node.attend(done) }()
			livez := func() int {
				w := httptest.NewRecorder()
				p.node.healthHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/livez", nil))
				return w.Code
			}
			time.Sleep(p.node.cfg.Tick) // of the bubble
			synctest.Wait()
			if got := livez(); signs.Load() < 5 || got != http.StatusOK {
				t.Errorf("it runs: %v; within its time: %d signs, /livez %d", runs, signs.Load(), got)
			}
			time.Sleep(loopLimit + time.Minute)
			synctest.Wait()
			signs.Store(0)
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			want := http.StatusOK
			if !runs {
				want = http.StatusServiceUnavailable
			}
			if got := livez(); (signs.Load() > 0) != runs || got != want {
				t.Errorf("it runs: %v; after its time: %d signs, /livez %d", runs, signs.Load(), got)
			}
			close(done)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
