package edge

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// replica is a server on a Unix socket that can be killed and started again.
type replica struct {
	id, socket string
	handler    http.Handler
	srv        *http.Server
	ended      chan struct{}
	asked      atomic.Int32 // requests but those for its health
}

func newReplica(t testing.TB, id string, handler http.HandlerFunc) *replica {
	t.Helper()
	dir, err := os.MkdirTemp("", "edge") // t.TempDir may be too long for a socket
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	r := &replica{id: id, socket: filepath.Join(dir, "s")}
	r.handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.UserAgent() != "trustcast-edge" {
			r.asked.Add(1)
		}
		handler(w, req)
	})
	t.Cleanup(r.kill)
	r.start(t)
	return r
}

func (r *replica) start(t testing.TB) {
	t.Helper()
	_ = os.Remove(r.socket)
	lis, err := net.Listen("unix", r.socket)
	must(t, err)
	r.serve(lis)
}

func (r *replica) serve(lis net.Listener) {
	lis.(*net.UnixListener).SetUnlinkOnClose(false) // as after a kill -9
	srv, ended := &http.Server{Handler: r.handler}, make(chan struct{})
	r.srv, r.ended = srv, ended
	go func() {
		defer close(ended)
		_ = srv.Serve(lis) // ends with kill
	}()
}

// kill cuts all connections, as the end of a process does.
func (r *replica) kill() {
	_ = r.srv.Close()
	<-r.ended
}

func (r *replica) endpoint() Endpoint { return Endpoint{ID: r.id, Socket: r.socket} }

func endpoints(replicas ...*replica) (all []Endpoint) {
	for _, r := range replicas {
		all = append(all, r.endpoint())
	}
	return all
}

// newBalanced runs an edge before replicas, whose health it asks often.
func newBalanced(t testing.TB, replicas []*replica, change ...func(*Config)) *front {
	t.Helper()
	f := newFront(t, nil, append([]func(*Config){func(c *Config) { c.HealthEvery = 50 * time.Millisecond }}, change...)...)
	f.Serve(endpoints(replicas...))
	return f
}

// loadOf returns what Load says of an endpoint.
func (f *front) loadOf(id string) (l EndpointLoad, ok bool) {
	for _, l := range f.Load() {
		if l.ID == id {
			return l, true
		}
	}
	return EndpointLoad{}, false
}

func isWell(f *front, id string) func() bool {
	return func() bool { l, ok := f.loadOf(id); return ok && l.Problem == "" }
}

func TestFewestInFlight(t *testing.T) {
	goOn := make(chan struct{})
	held := func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-goOn
		}
		ok(w, r)
	}
	a, b := newReplica(t, "a", held), newReplica(t, "b", held)
	f := newBalanced(t, []*replica{a, b})
	client := f.client(t)
	for range 10 { // one after the other: they take turns
		get(t, client, "/v2/", "ann", "secret")
	}
	if a.asked.Load() != 5 || b.asked.Load() != 5 {
		t.Errorf("a got %d, b got %d", a.asked.Load(), b.asked.Load())
	}
	var waits []func() answer
	for i := range 5 {
		waits = append(waits, later(t, client, request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil)))
		until(t, func() bool { return a.asked.Load()+b.asked.Load() == int32(11+i) })
	}
	la, _ := f.loadOf("a")
	lb, _ := f.loadOf("b")
	if la.InFlight+lb.InFlight != 5 || la.InFlight < 2 || lb.InFlight < 2 {
		t.Errorf("in flight: %+v %+v", la, lb)
	}
	busy, idle := a, b // the next goes where fewer are
	if la.InFlight < lb.InFlight {
		busy, idle = b, a
	}
	before, idleBefore := busy.asked.Load(), idle.asked.Load()
	for range 4 {
		get(t, client, "/v2/", "ann", "secret")
	}
	if busy.asked.Load() != before || idle.asked.Load() != idleBefore+4 {
		t.Error("a busier one was asked")
	}
	close(goOn)
	for _, wait := range waits {
		wait()
	}
	until(t, func() bool { l, _ := f.loadOf("a"); return l.InFlight == 0 })
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow{make(chan struct{})}
		f := newSimulated(t, s.serve)
		rest := begin(t, f.client(t))
		var asked atomic.Int32
		second := Endpoint{ID: "embedded-2", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); ok(w, r) })}
		f.Serve([]Endpoint{{ID: "embedded-1", Handler: http.HandlerFunc(s.serve)}, second})
		must(t, f.Drain(t.Context(), "unknown"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Drain(ctx, "embedded-1"); err == nil || !strings.Contains(err.Error(), "1 requests") {
			t.Errorf("with a request in flight: %v", err)
		}
		for range 4 {
			get(t, f.client(t), "/v2/", "ann", "secret")
		}
		if asked.Load() != 4 {
			t.Errorf("a draining endpoint got %d new requests", 4-asked.Load())
		}
		f.Serve([]Endpoint{second}) // draining goes on
		if l, ok := f.loadOf("embedded-1"); !ok || !l.Draining || l.InFlight != 1 {
			t.Errorf("%+v", l)
		}
		drained := make(chan error, 1)
		go func() { drained <- f.Drain(t.Context(), "embedded-1") }()
		synctest.Wait()
		select {
		case err := <-drained:
			t.Fatalf("drained with a request in flight: %v", err)
		default:
		}
		close(s.goOn)
		if got, err := rest(); got != part+part || err != nil {
			t.Errorf("the download got %q, %v", got, err)
		}
		must(t, <-drained)
		if len(f.Load()) != 1 {
			t.Errorf("%+v", f.Load())
		}
	})
}

// An endpoint whose drain was given up is put back by Serve.
func TestServeEndsADrain(t *testing.T) {
	f := newFront(t, ok)
	must(t, f.Drain(t.Context(), "embedded-1"))
	wait := later(t, f.client(t), request(t, http.MethodGet, "/v2/", "ann", "secret", nil))
	until(t, func() bool { return f.Held() == 1 })
	f.Serve([]Endpoint{{ID: "embedded-1", Handler: http.HandlerFunc(ok)}})
	if got := wait(); got.StatusCode != http.StatusOK {
		t.Errorf("%s", got.Status)
	}
}

func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSimulated(t, ok)
		f.Serve(nil)
		before := time.Now()
		got := get(t, f.client(t), "/v2/", "ann", "secret")
		if got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" || time.Since(before) != defaultHoldLimit {
			t.Errorf("%s after %v", got.Status, time.Since(before))
		}
		// A write that waits for an endpoint is none in flight.
		wait := later(t, f.client(t), request(t, http.MethodPost, "/v2/a/blobs/uploads/", "ann", "secret", nil))
		synctest.Wait()
		must(t, f.Quiet(t.Context()))
		f.Serve([]Endpoint{{ID: "embedded-2", Handler: http.HandlerFunc(ok)}})
		if got := wait(); got.StatusCode != http.StatusOK {
			t.Errorf("%s", got.Status)
		}
	})
}

// Replaced under load, one by one: no request fails.
func TestReplacedUnderLoad(t *testing.T) {
	a, b := newReplica(t, "a", ok), newReplica(t, "b", ok)
	f := newBalanced(t, []*replica{a, b})
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var served atomic.Int64
	for range 4 {
		client := f.client(t)
		clients.Go(func() {
			for ctx.Err() == nil {
				resp, err := client.Do(request(t, http.MethodGet, "/v2/", "ann", "secret", nil))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s", resp.Status)
				}
				served.Add(1)
			}
		})
	}
	for i := range 10 {
		next := newReplica(t, "n"+string(rune('0'+i)), ok)
		f.Serve(endpoints(a, b, next))
		must(t, f.Drain(t.Context(), a.id))
		a.kill()
		f.Serve(endpoints(b, next))
		a, b = b, next
		before := served.Load()
		until(t, func() bool { return served.Load() > before+20 })
	}
	stop()
	clients.Wait()
	t.Logf("%d requests while 10 replicas were replaced", served.Load())
}
