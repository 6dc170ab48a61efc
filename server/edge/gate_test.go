package edge

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// later sends a request and returns what reads its answer.
func later(t testing.TB, client *http.Client, req *http.Request) func() answer {
	t.Helper()
	type result struct {
		answer
		err error
	}
	done := make(chan result, 1)
	go func() {
		resp, err := client.Do(req)
		if err != nil {
			done <- result{err: err}
			return
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		done <- result{answer{resp, string(body)}, err}
	}()
	return func() answer {
		t.Helper()
		got := <-done
		must(t, got.err)
		return got.answer
	}
}

func TestHeldRequestsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		f := newSimulated(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); ok(w, r) })
		f.Gate(Held)
		f.Gate(Held) // is no change
		var waits []func() answer
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodPost} {
			waits = append(waits, later(t, f.client(t), request(t, method, "/v2/a/manifests/latest", "ann", "secret", nil)))
		}
		time.Sleep(defaultHoldLimit - time.Second) // simulated
		synctest.Wait()
		if n := f.Held(); n != 4 || asked.Load() != 0 {
			t.Errorf("%d wait, %d were asked", n, asked.Load())
		}
		f.Gate(Open)
		for _, wait := range waits {
			if got := wait(); got.StatusCode != http.StatusOK {
				t.Errorf("%s", got.Status)
			}
		}
		if n := f.Held(); n != 0 {
			t.Errorf("%d wait still", n)
		}
	})
}

func TestHeldTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSimulated(t, func(http.ResponseWriter, *http.Request) { t.Error("the engine was asked") })
		f.Gate(Held)
		before := time.Now()
		got := get(t, f.client(t), "/v2/", "ann", "secret")
		if took := time.Since(before); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" || took != defaultHoldLimit {
			t.Errorf("%s after %v, retry after %q", got.Status, took, got.Header.Get("Retry-After"))
		}
		if !strings.Contains(got.body, "trustcast registry unpause") || !strings.Contains(got.body, "UNAVAILABLE") {
			t.Errorf("it says %s", got.body)
		}
	})
}

// One limit counts for all that a request waits for: gates that follow each other
// do not make it wait longer.
func TestHeldForOneLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSimulated(t, ok)
		f.Gate(Held)
		before := time.Now()
		wait := later(t, f.client(t), request(t, http.MethodPost, "/v2/a/blobs/uploads/", "ann", "secret", nil))
		time.Sleep(defaultHoldLimit / 2)
		f.Gate(ReadOnly)
		time.Sleep(defaultHoldLimit / 4)
		f.Serve(nil)
		f.Gate(Open)
		if got := wait(); got.StatusCode != http.StatusServiceUnavailable || time.Since(before) != defaultHoldLimit {
			t.Errorf("%s after %v", got.Status, time.Since(before))
		}
	})
}

func TestClosedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSimulated(t, ok)
		f.Gate(Held)
		wait := later(t, f.client(t), request(t, http.MethodGet, "/v2/", "ann", "secret", nil))
		synctest.Wait()
		before := time.Now()
		f.Gate(Closed)
		for _, got := range []answer{wait(), get(t, f.client(t), "/v2/", "ann", "secret")} {
			if got.StatusCode != http.StatusServiceUnavailable || !strings.Contains(got.body, "trustcast registry start") {
				t.Errorf("%s: %s", got.Status, got.body)
			}
		}
		if took := time.Since(before); took != 0 {
			t.Errorf("refused after %v", took)
		}
		// Who may not sign in learns nothing of it.
		if got := get(t, f.client(t), "/v2/", "ann", "wrong"); got.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s", got.Status)
		}
	})
}

func TestReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow{make(chan struct{})}
		f := newSimulated(t, s.serve)
		writing := later(t, f.client(t), request(t, http.MethodPatch, "/v2/a/blobs/uploads/1", "ann", "secret", nil))
		reading := later(t, f.client(t), request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil))
		synctest.Wait()
		f.Gate(ReadOnly)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Quiet(ctx); err == nil || !strings.Contains(err.Error(), "1 are left") {
			t.Errorf("with a write in flight: %v", err)
		}
		quiet := make(chan error, 1)
		go func() { quiet <- f.Quiet(t.Context()) }()
		waiting := later(t, f.client(t), request(t, http.MethodDelete, "/v2/a/manifests/latest", "ann", "secret", nil))
		synctest.Wait()
		if got := get(t, f.client(t), "/v2/", "ann", "secret"); got.StatusCode != http.StatusOK || f.Held() != 1 {
			t.Errorf("a read got %s while %d wait", got.Status, f.Held())
		}
		select {
		case err := <-quiet:
			t.Fatalf("quiet with a write in flight: %v", err)
		default:
		}
		s.goOn <- struct{}{}
		s.goOn <- struct{}{}
		if got := writing(); got.body != part+part {
			t.Errorf("the write got %s: %q", got.Status, got.body)
		}
		must(t, <-quiet) // with a read in flight, and a write that waits
		must(t, f.Quiet(t.Context()))
		if got := reading(); got.body != part+part {
			t.Errorf("the read got %s: %q", got.Status, got.body)
		}
		f.Gate(Open)
		if got := waiting(); got.StatusCode != http.StatusOK {
			t.Errorf("the write that waited got %s", got.Status)
		}
	})
}

// Empty waits for reads and writes alike, and tells who may not wait any longer how
// many there are.
func TestEmpty(t *testing.T) {
	for path, method := range map[string]string{"/v2/a/blobs/sha256:1": http.MethodGet, "/v2/a/blobs/uploads/1": http.MethodPatch} {
		synctest.Test(t, func(t *testing.T) {
			s := slow{make(chan struct{})}
			f := newSimulated(t, s.serve)
			must(t, f.Empty(t.Context()))
			first := later(t, f.client(t), request(t, method, path, "ann", "secret", nil))
			second := later(t, f.client(t), request(t, http.MethodGet, "/v2/a/blobs/sha256:2", "ann", "secret", nil))
			synctest.Wait()
			f.Gate(Closed)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := f.Empty(ctx); err == nil || !strings.Contains(err.Error(), "requests in flight: 2 are left") {
				t.Errorf("empty with two in flight: %v", err)
			}
			empty := make(chan error, 1)
			go func() { empty <- f.Empty(t.Context()) }()
			for range 2 {
				synctest.Wait()
				select {
				case err := <-empty:
					t.Fatalf("empty with a %s in flight: %v", method, err)
				default:
				}
				s.goOn <- struct{}{}
			}
			must(t, <-empty)
			for _, got := range []answer{first(), second()} {
				if got.body != part+part {
					t.Errorf("%s: %q", got.Status, got.body)
				}
			}
		})
	}
}

func TestGatesCutNothing(t *testing.T) {
	for _, gate := range []Gate{ReadOnly, Held, Closed} {
		s := slow{make(chan struct{})}
		f := newFront(t, s.serve)
		rest := begin(t, f.client(t))
		f.Gate(gate)
		close(s.goOn)
		if got, err := rest(); got != part+part || err != nil {
			t.Errorf("%v: the download got %q, %v", gate, got, err)
		}
	}
}

// Hosts prove what they trust while the registry is paused or stopped, too.
func TestHandshakesBehindEveryGate(t *testing.T) {
	f := newFront(t, ok)
	ca2 := newCA(t, 2)
	must(t, f.Publish(pairs(t, f.ca), pairs(t, ca2, follow(t, f.ca, ca2))))
	f.Serve(nil)
	for _, gate := range []Gate{Open, ReadOnly, Held, Closed} {
		f.Gate(gate)
		f.leaf(t, domain, pool(f.ca))
		conn, err := f.handshake(t, next(ca2))
		must(t, err)
		if got := conn.ConnectionState().NegotiatedProtocol; got != NextProtocol {
			t.Errorf("%v: protocol %q", gate, got)
		}
	}
}

func TestHeldClientLeaves(t *testing.T) {
	f := newFront(t, ok)
	f.Gate(Held)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		resp, err := f.client(t).Do(request(t, http.MethodGet, "/v2/", "ann", "secret", nil).WithContext(ctx))
		if err == nil {
			_ = resp.Body.Close()
		}
		left <- err
	}()
	until(t, func() bool { return f.Held() == 1 })
	leave()
	if err := <-left; err == nil {
		t.Error("it was answered")
	}
	until(t, func() bool { return f.Held() == 0 })
}

func TestStopEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSimulated(t, ok)
		f.Gate(Held)
		wait := later(t, f.client(t), request(t, http.MethodGet, "/v2/", "ann", "secret", nil))
		synctest.Wait()
		before := time.Now()
		f.stop()
		if got := wait(); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
			t.Errorf("%s", got.Status)
		}
		f.close(t)
		if took := time.Since(before); took > time.Second {
			t.Errorf("the stop waited %v", took)
		}
	})
}

func TestHeldAreBounded(t *testing.T) {
	f := newFront(t, ok)
	f.Gate(Held)
	f.metrics.held.Store(maxHeld)
	if got := get(t, f.client(t), "/v2/", "ann", "secret"); got.StatusCode != http.StatusServiceUnavailable || !strings.Contains(got.body, "too many") {
		t.Errorf("%s: %s", got.Status, got.body)
	}
	if n := f.Held(); n != maxHeld {
		t.Errorf("%d wait", n)
	}
}

// A client that asks before it sends is asked for its body only when an endpoint
// wants it.
func TestHeldBodyIsNotRead(t *testing.T) {
	f := newFront(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	f.Gate(Held)
	client := f.client(t)
	client.Transport.(*http.Transport).ExpectContinueTimeout = time.Hour
	var read atomic.Bool
	req := request(t, http.MethodPut, "/v2/a/manifests/latest", "ann", "secret", readerFunc(func(p []byte) (int, error) {
		read.Store(true)
		return 0, io.EOF
	}))
	req.Header.Set("Expect", "100-continue")
	wait := later(t, client, req)
	until(t, func() bool { return f.Held() == 1 })
	if read.Load() {
		t.Error("the body was asked for while the request waits")
	}
	f.Gate(Open)
	if got := wait(); got.StatusCode != http.StatusOK || !read.Load() {
		t.Errorf("%s, the body was read: %v", got.Status, read.Load())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// until waits for a condition that is near.
func until(t testing.TB, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
	}
}
