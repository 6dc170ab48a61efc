package edge

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A killed endpoint is taken up again without losing a request.
func TestKilledAndBack(t *testing.T) {
	reg := prometheus.NewRegistry()
	a := newReplica(t, "a", ok)
	var told atomic.Int32
	f := newBalanced(t, []*replica{a}, func(c *Config) {
		c.Registerer = reg
		c.Failed = func(string, error) { told.Add(1) }
	})
	client := f.client(t)
	get(t, client, "/v2/", "ann", "secret")
	a.kill()
	until(t, func() bool { return !isWell(f, "a")() })
	var waits []func() answer
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		waits = append(waits, later(t, client, request(t, method, "/v2/a/manifests/latest", "ann", "secret", nil)))
	}
	waits = append(waits, later(t, client, request(t, http.MethodPut, "/v2/a/manifests/latest", "ann", "secret", strings.NewReader(part))))
	until(t, func() bool { return f.Held() == 4 })
	if l, _ := f.loadOf("a"); l.Problem == "" || l.Failures != 1 || told.Load() != 1 {
		t.Errorf("%+v, told %d times", l, told.Load())
	}
	must(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP trustcast_edge_endpoint_failing 1 while an endpoint fails and gets no requests.
# TYPE trustcast_edge_endpoint_failing gauge
trustcast_edge_endpoint_failing{endpoint="a"} 1
# HELP trustcast_edge_endpoint_failures_total How often an endpoint was taken out because it failed.
# TYPE trustcast_edge_endpoint_failures_total counter
trustcast_edge_endpoint_failures_total{endpoint="a"} 1
# HELP trustcast_edge_requests_held Requests that wait behind the gate or for an endpoint.
# TYPE trustcast_edge_requests_held gauge
trustcast_edge_requests_held 4
`), "trustcast_edge_endpoint_failing", "trustcast_edge_endpoint_failures_total", "trustcast_edge_requests_held"))
	a.start(t)
	for _, wait := range waits {
		if got := wait(); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", got.Status, got.body)
		}
	}
	if l, _ := f.loadOf("a"); l.Problem != "" || l.Failures != 1 {
		t.Errorf("%+v", l)
	}
}

// Requests in flight at a kill: those that read come from the other endpoint.
func TestKilledWithRequestsInFlight(t *testing.T) {
	var waiting atomic.Int32
	a := newReplica(t, "a", failing(func(_ http.ResponseWriter, r *http.Request) {
		waiting.Add(1)
		<-r.Context().Done()
	}))
	b := newReplica(t, "b", ok)
	f := newBalanced(t, []*replica{a})
	client := f.client(t)
	var waits []func() answer
	for range 5 {
		waits = append(waits, later(t, client, request(t, http.MethodGet, "/v2/a/manifests/latest", "ann", "secret", nil)))
	}
	until(t, func() bool { return waiting.Load() == 5 })
	f.Serve(endpoints(a, b))
	a.kill()
	for _, wait := range waits {
		if got := wait(); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", got.Status, got.body)
		}
	}
	if n := b.asked.Load(); n != 5 {
		t.Errorf("the other answered %d", n)
	}
}

// An endpoint that takes connections and says nothing: what only reads goes
// elsewhere as soon as that is known, also from the middle of a small answer.
func TestHangs(t *testing.T) {
	var hangs atomic.Bool
	a := newReplica(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "half") {
			w.Header().Set("Content-Length", "4")
			_, _ = io.WriteString(w, "ha")
			_ = http.NewResponseController(w).Flush()
		}
		if hangs.Load() {
			<-r.Context().Done()
			return
		}
		ok(w, r)
	})
	b := newReplica(t, "b", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "half") })
	f := newBalanced(t, []*replica{a}, func(c *Config) { c.healthTimeout = 4 * time.Second })
	until(t, isWell(f, "a"))
	hangs.Store(true)
	client := f.client(t)
	var waits []func() answer
	for _, path := range []string{"/v2/a/manifests/latest", "/v2/a/manifests/half"} {
		waits = append(waits, later(t, client, request(t, http.MethodGet, path, "ann", "secret", nil)))
	}
	until(t, func() bool { return a.asked.Load() == 2 })
	f.Serve(endpoints(a, b))
	for _, wait := range waits {
		if got := wait(); got.StatusCode != http.StatusOK || got.body != "half" {
			t.Errorf("%s: %s", got.Status, got.body)
		}
	}
	if l, _ := f.loadOf("a"); l.Failures != 1 || l.Problem == "" {
		t.Errorf("%+v", l)
	}
	hangs.Store(false)
	until(t, isWell(f, "a"))
	f.Serve(endpoints(a))
	if got := get(t, client, "/v2/", "ann", "secret"); got.body != "{}" {
		t.Errorf("after it hung: %s %s", got.Status, got.body)
	}
}

// Only a server's error is a bad answer.
func TestAnswersToTheQuestionOfHealth(t *testing.T) {
	for status, well := range map[int]bool{200: true, 401: true, 404: true, 429: true, 500: false, 502: false, 503: false} {
		a := newReplica(t, "a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		err := newProxy(a.socket, 0, slog.New(slog.DiscardHandler)).health(t.Context())
		if (err == nil) != well {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// Another user's process at the end of the socket is no replica: whoever runs as one
// could put a link to another program's socket in its place.
func TestSomebodyElseAnswers(t *testing.T) {
	var asked atomic.Int32
	a := newReplica(t, "a", func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	uid := os.Geteuid()
	if uid == 0 { // as whom nobody is checked
		uid = 12345
		a.kill()
		a.startAs(t, uid)
	}
	log := slog.New(slog.DiscardHandler)
	must(t, newProxy(a.socket, uid, log).health(t.Context()))
	if err := newProxy(a.socket, uid+1, log).health(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("uid %d answers on", uid)) {
		t.Errorf("error %v", err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d requests got through", n)
	}
}

// startAs is start by another user, which takes root. The kernel knows a listener by
// the thread that listened.
func (r *replica) startAs(t testing.TB, uid int) {
	t.Helper()
	must(t, os.Chown(filepath.Dir(r.socket), uid, -1))
	_ = os.Remove(r.socket)
	listening := make(chan struct{})
	var lis net.Listener
	var err error
	go func() {
		defer close(listening)
		runtime.LockOSThread() // for ever: the thread has changed
		same := ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			err = errno
			return
		}
		lis, err = net.Listen("unix", r.socket)
	}()
	<-listening
	must(t, err)
	r.serve(lis)
}

func TestIllAndWellAgain(t *testing.T) {
	var ill atomic.Bool
	a := newReplica(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if ill.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		ok(w, r)
	})
	f := newBalanced(t, []*replica{a})
	for range 3 {
		ill.Store(true)
		until(t, func() bool { return !isWell(f, "a")() })
		if l, _ := f.loadOf("a"); !strings.Contains(l.Problem, "503") {
			t.Errorf("%+v", l)
		}
		ill.Store(false)
		until(t, isWell(f, "a"))
	}
	if got := get(t, f.client(t), "/v2/", "ann", "secret"); got.StatusCode != http.StatusOK {
		t.Errorf("%s", got.Status)
	}
}

// A good answer that is older than a failure takes nobody in, and a failure of an
// earlier life takes nobody out.
func TestLateWord(t *testing.T) {
	e := New(Config{Domain: domain})
	e.Serve([]Endpoint{{ID: "a", Socket: "/nowhere"}})
	first, _ := e.balance.choose()
	before := e.balance.failures(first)
	e.fail(first, io.ErrUnexpectedEOF)
	if e.balance.well(first, before, time.Hour) || e.Load()[0].Problem == "" {
		t.Error("an old good answer took it in")
	}
	if !e.balance.well(first, e.balance.failures(first), time.Hour) {
		t.Error("a good answer did not")
	}
	e.fail(first, io.ErrUnexpectedEOF)
	if e.Load()[0].Problem != "" {
		t.Error("a failure of an earlier life took it out")
	}
	again, _ := e.balance.choose()
	e.fail(again, io.ErrUnexpectedEOF)
	if e.Load()[0].Problem == "" {
		t.Error("one of this life did not")
	}
}

// Killed at random under load: what only reads never fails.
func TestKillsUnderLoad(t *testing.T) {
	a, b := newReplica(t, "a", ok), newReplica(t, "b", ok)
	f := newBalanced(t, []*replica{a, b})
	done := make(chan struct{})
	var clients sync.WaitGroup
	var served atomic.Int64
	for range 4 {
		client := f.client(t)
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := client.Do(request(t, http.MethodGet, "/v2/a/manifests/latest", "ann", "secret", nil))
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
	for i := range 20 {
		victim := []*replica{a, b}[i%2]
		victim.kill()
		before := served.Load()
		until(t, func() bool { return served.Load() > before+20 })
		victim.start(t)
		until(t, isWell(f, victim.id))
	}
	close(done)
	clients.Wait()
	t.Logf("%d requests while replicas were killed 20 times", served.Load())
}
