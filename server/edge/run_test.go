package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slow is an engine that sends a part, waits for its turn, and sends the rest.
type slow struct{ goOn chan struct{} }

const part = "half of a blob"

func (s slow) serve(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/blobs/") {
		ok(w, r)
		return
	}
	_, _ = io.WriteString(w, part)
	_ = http.NewResponseController(w).Flush()
	<-s.goOn
	_, _ = io.WriteString(w, part)
}

// begin starts a download and returns what has come and what reads the rest.
func begin(t *testing.T, client *http.Client) (rest func() (string, error)) {
	t.Helper()
	resp, err := client.Do(request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil))
	must(t, err)
	first := make([]byte, len(part))
	_, err = io.ReadFull(resp.Body, first)
	must(t, err)
	return func() (string, error) {
		defer func() { _ = resp.Body.Close() }()
		more, err := io.ReadAll(resp.Body)
		return string(first) + string(more), err
	}
}

func TestPublishCutsNothing(t *testing.T) {
	s := slow{make(chan struct{})}
	f := newFront(t, s.serve)
	client := f.client(t) // trusts the old CA only
	rest := begin(t, client)

	ca2 := newCA(t, 2)
	must(t, f.Publish(pairs(t, ca2), nil)) // without predecessors, to tell the two apart
	f.people.remove("ann")
	if leaf := f.leaf(t, domain, pool(ca2)); leaf.Issuer.String() != ca2.Cert.Subject.String() {
		t.Errorf("a new connection got the leaf of %s", leaf.Issuer)
	}
	if _, err := f.handshake(t, &tls.Config{ServerName: domain, RootCAs: pool(f.ca)}); err == nil {
		t.Error("a new connection got the old leaf")
	}
	close(s.goOn)
	if got, err := rest(); got != part+part || err != nil {
		t.Errorf("the download got %q, %v", got, err)
	}
	// The same connection goes on, too: only the user is gone.
	if got := get(t, client, "/v2/", "ann", "secret"); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s", got.Status)
	}
}

func TestStopDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow{make(chan struct{})}
		f := newSimulated(t, s.serve)
		rest := begin(t, f.client(t))
		f.stop()
		time.Sleep(DefaultDrain - time.Second) // simulated
		select {
		case <-f.ended:
			t.Fatal("the edge ended with a request in flight")
		default:
		}
		if _, err := f.dial(t.Context()); err == nil {
			t.Error("a new connection was taken")
		}
		close(s.goOn)
		if got, err := rest(); got != part+part || err != nil {
			t.Errorf("the download got %q, %v", got, err)
		}
		f.close(t)
	})
}

func TestStopCutsWhatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan struct{})
		f := newSimulated(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, part)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			time.Sleep(time.Second) // simulated: it has to put something in order
			close(gone)
		})
		rest := begin(t, f.client(t))
		before := time.Now()
		f.close(t)
		if took := time.Since(before); took != DefaultDrain+time.Second {
			t.Errorf("it waited %v", took)
		}
		select {
		case <-gone:
		default:
			t.Error("the edge ended before the engine's work")
		}
		if _, err := rest(); err == nil {
			t.Error("a download that was cut looks whole")
		}
	})
}

func TestStopWithIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSimulated(t, ok)
		get(t, f.client(t), "/v2/", "ann", "secret")
		raw, err := f.dial(t.Context()) // says nothing
		must(t, err)
		defer func() { _ = raw.Close() }()
		before := time.Now()
		f.close(t)
		if took := time.Since(before); took > DefaultDrain/2 {
			t.Errorf("idle connections held the stop for %v", took)
		}
	})
}

// Who connected before a stop and asks after it began is answered: net/http would let go
// of the connection.
func TestStopServesWhoHasConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSimulated(t, ok)
		raw, err := f.dial(t.Context())
		must(t, err)
		synctest.Wait() // it is accepted
		f.stop()
		time.Sleep(newcomerLimit / 2) // simulated
		conn := tls.Client(raw, &tls.Config{ServerName: domain, RootCAs: pool(f.ca)})
		defer func() { _ = conn.Close() }()
		req := request(t, http.MethodGet, "/v2/", "ann", "secret", nil)
		must(t, req.Write(conn))
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		must(t, err)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("%s, the connection ends: %v", resp.Status, resp.Close)
		}
		before := time.Now()
		f.close(t)
		if took := time.Since(before); took > time.Second {
			t.Errorf("the stop took %v more", took)
		}
	})
}

func TestListenerFails(t *testing.T) {
	f := newFront(t, ok)
	must(t, f.lis.Close())
	<-f.ended
	if f.err == nil {
		t.Error("the edge ended without a word")
	}
	f.err = nil
}

// A download that moves may take as long as it likes.
func TestSlowIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pieces = 20
		f := newSimulated(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			for range pieces {
				time.Sleep(stallTimeout * 4 / 5) // simulated
				_, _ = io.WriteString(w, part)
				_ = http.NewResponseController(w).Flush()
			}
		})
		sent, sending := io.Pipe()
		go func() {
			for range pieces {
				time.Sleep(stallTimeout * 4 / 5)
				_, _ = io.WriteString(sending, part)
			}
			_ = sending.Close()
		}()
		got := do(t, f.client(t), request(t, http.MethodPatch, "/v2/a/blobs/uploads/1", "ann", "secret", sent))
		if got.body != strings.Repeat(part, pieces) {
			t.Errorf("%s, %d bytes", got.Status, len(got.body))
		}
	})
}

// The limits are on the client: an engine may be silent for as long as it likes.
func TestSlowEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSimulated(t, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			time.Sleep(3 * stallTimeout)
			if err != nil || r.Context().Err() != nil {
				t.Errorf("the engine lost its client: %v, %v", err, r.Context().Err())
			}
			w.WriteHeader(http.StatusCreated)
			time.Sleep(3 * stallTimeout)
		})
		req := request(t, http.MethodPut, "/v2/a/manifests/latest", "ann", "secret", strings.NewReader(part))
		if got := do(t, f.client(t), req); got.StatusCode != http.StatusCreated {
			t.Errorf("%s", got.Status)
		}
	})
}

func TestStalledDownloadIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cut := make(chan error, 1)
		f := newSimulated(t, func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.Copy(w, bytes.NewReader(make([]byte, 8<<20)))
			cut <- err
		})
		resp, err := f.client(t).Do(request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil))
		must(t, err)
		before := time.Now()
		if err := <-cut; err == nil { // nobody reads
			t.Error("8 MiB went to nobody")
		}
		if took := time.Since(before); took > stallTimeout+readHeaderTimeout { // closing TLS takes its time, too
			t.Errorf("cut after %v", took)
		}
		_ = resp.Body.Close()
	})
}

func TestStalledUploadIsCut(t *testing.T) {
	for _, user := range []string{"ann", "nobody"} { // nobody's body is not even wanted
		synctest.Test(t, func(t *testing.T) {
			f := newSimulated(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			conn, err := f.handshake(t, &tls.Config{ServerName: domain, RootCAs: pool(f.ca)})
			must(t, err)
			req := request(t, http.MethodPut, "/v2/a/blobs/uploads/1", user, "secret", nil)
			req.ContentLength, req.Body = 100, io.NopCloser(strings.NewReader(strings.Repeat("x", 100)))
			var wire bytes.Buffer
			must(t, req.Write(&wire))
			_, err = conn.Write(wire.Bytes()[:wire.Len()-50]) // and no more
			must(t, err)
			before := time.Now()
			_, _ = io.Copy(io.Discard, conn) // until the server closes
			if took := time.Since(before); took > stallTimeout+idleTimeout {
				t.Errorf("cut after %v", took)
			}
		})
	}
}
