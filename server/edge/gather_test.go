package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// noise is the same for the same length.
func noise(n int) []byte {
	content := make([]byte, n)
	from := mathrand.NewChaCha8([32]byte{1})
	_, _ = from.Read(content) // never fails
	return content
}

// TestGatheredAnswers: however an engine writes an answer, its client gets that.
func TestGatheredAnswers(t *testing.T) {
	content := noise(3 * copySize)
	type step struct {
		length int
		flush  bool
		copied bool // by ReadFrom
	}
	var steps []step
	known := false // the length is, beforehand
	f := newFront(t, func(w http.ResponseWriter, _ *http.Request) {
		rest := content
		if known {
			sum := 0
			for _, s := range steps {
				sum += s.length
			}
			w.Header().Set("Content-Length", strconv.Itoa(sum))
		}
		for _, s := range steps {
			part := rest[:s.length]
			rest = rest[s.length:]
			var n int64
			var err error
			if s.copied {
				n, err = io.Copy(w, bytes.NewReader(part))
			} else {
				var written int
				written, err = w.Write(part)
				n = int64(written)
			}
			if n != int64(len(part)) || err != nil {
				t.Errorf("%d of %d bytes written, %v", n, len(part), err)
			}
			if s.flush {
				w.(http.Flusher).Flush()
			}
		}
	})
	client := f.client(t)
	rapid.Check(t, func(rt *rapid.T) {
		known = rapid.Bool().Draw(rt, "the length is known")
		steps = nil
		sum := 0
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			length := rapid.OneOf(
				rapid.IntRange(0, 2*copySize),
				rapid.IntRange(worthGathering-2, worthGathering+2),
				rapid.IntRange(copySize-100, copySize+100),
				rapid.IntRange(0, 100),
			).Draw(rt, "length")
			if sum += length; sum > len(content) {
				sum -= length
				continue
			}
			steps = append(steps, step{length, rapid.Bool().Draw(rt, "flush"), rapid.Bool().Draw(rt, "copied")})
		}
		got := get(t, client, "/v2/a/blobs/sha256:1", "ann", "secret")
		if got.StatusCode != http.StatusOK || got.body != string(content[:sum]) {
			rt.Fatalf("%s, %d bytes, want the first %d of the content", got.Status, len(got.body), sum)
		}
	})
}

// TestNothingIsHeldBack: when a Write of an answer returns, all is on its way to the
// client.
func TestNothingIsHeldBack(t *testing.T) {
	content := noise(copySize)
	for _, length := range []int{worthGathering, worthGathering + 1, 100_000, copySize} {
		t.Run(strconv.Itoa(length), func(t *testing.T) {
			here := make(chan struct{})
			f := newFront(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(2*length))
				for range 2 {
					_, err := w.Write(content[:length])
					if err != nil {
						t.Error(err)
					}
					select {
					case <-here:
					case <-r.Context().Done():
						t.Error("the client went away")
					}
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // else a failure waits for ever
			defer cancel()
			resp, err := f.client(t).Do(request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil).WithContext(ctx))
			must(t, err)
			defer func() { _ = resp.Body.Close() }()
			for range 2 {
				got := make([]byte, length)
				_, err := io.ReadFull(resp.Body, got)
				must(t, err)
				if !bytes.Equal(got, content[:length]) {
					t.Error("another content")
				}
				here <- struct{}{}
			}
		})
	}
}

// pouring is an edge whose engine writes until that fails, and what it failed with.
func pouring(t *testing.T, set ...func(*Config)) (*front, <-chan error) {
	t.Helper()
	content, wrote := noise(copySize), make(chan error, 1)
	return newFront(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(content); err != nil {
				wrote <- err
				return
			}
		}
	}, set...), wrote
}

// TestClientsThatGoAway: an engine hears of it, and nothing keeps the edge from ending.
func TestClientsThatGoAway(t *testing.T) {
	f, wrote := pouring(t)
	resp, err := f.client(t).Do(request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil))
	must(t, err)
	_, err = io.ReadFull(resp.Body, make([]byte, copySize))
	must(t, err)
	must(t, resp.Body.Close())
	if err := <-wrote; err == nil {
		t.Error("no error")
	}
	f.close(t)
}

// TestStopCutsWhoTakesNothing: a client that stands still is cut by a stop, too.
func TestStopCutsWhoTakesNothing(t *testing.T) {
	f, wrote := pouring(t, func(c *Config) { c.Drain = 1 })
	resp, err := f.client(t).Do(request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil))
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	f.close(t)
	if err := <-wrote; err == nil {
		t.Error("no error")
	}
}

// TestFewSystemCalls counts what a large answer comes to.
func TestFewSystemCalls(t *testing.T) {
	content := noise(copySize)
	const parts = 16
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	lis := &counting{Listener: inner}
	f := run(t, lis, lis.dial, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(parts*len(content)))
		for range parts {
			if _, err := w.Write(content); err != nil {
				t.Error(err)
			}
		}
	})
	client := f.client(t)
	get(t, client, "/v2/a/blobs/sha256:1", "ann", "secret") // with the handshake
	before := lis.writes.Load()
	get(t, client, "/v2/a/blobs/sha256:1", "ann", "secret")
	if got := lis.writes.Load() - before; got != parts {
		t.Errorf("%d writes for %d parts", got, parts)
	}
}

// counting counts the writes of its connections.
type counting struct {
	net.Listener
	writes atomic.Int64
}

func (c *counting) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", c.Addr().String())
}

// Accept waits for the next connection.
func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{conn, &c.writes}, nil
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

// Write counts.
func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// TestGathering is about what is kept between writes.
func TestGathering(t *testing.T) {
	var g gathering
	sent := &sink{}
	content := noise(3*gathered + 5)
	write := func(on bool, from, to int) {
		t.Helper()
		g.on.Store(on)
		n, err := g.write(sent, content[from:to])
		if n != to-from || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	holds := func(bytesSent int, kept bool) {
		t.Helper()
		if !bytes.Equal(sent.got, content[:bytesSent]) || (g.buffer != nil) != kept {
			t.Errorf("%d bytes sent, a buffer: %v; want %d, %v", len(sent.got), g.buffer != nil, bytesSent, kept)
		}
	}
	write(false, 0, 10)
	holds(10, false)
	write(true, 10, 20)
	holds(10, true)
	write(true, 20, 10+gathered+3)
	holds(10+gathered, true)
	write(false, 10+gathered+3, 10+gathered+4)
	holds(10+gathered+4, false)
	write(true, 10+gathered+4, 11+gathered+4)
	write(false, 11+gathered+4, len(content)) // more than fits
	holds(len(content), false)

	g.on.Store(true)
	sent.err = errors.New("cut")
	if _, err := g.write(sent, content[:gathered]); !errors.Is(err, sent.err) {
		t.Errorf("%v", err)
	}
}

// sink is a connection that keeps what is sent.
type sink struct {
	net.Conn
	got []byte
	err error
}

// Write keeps p.
func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.got = append(s.got, p...)
	return len(p), nil
}
