package edge

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// disk is one whose free space changes; it counts who looks.
type disk struct{ free, looks atomic.Uint64 }

func (d *disk) config(c *Config) {
	c.MinFree = 1 << 30
	c.Free = func() (uint64, error) { d.looks.Add(1); return d.free.Load(), nil }
}

func TestFullDiskRefusesPushes(t *testing.T) {
	d := &disk{}
	d.free.Store(500 << 20)
	reg := prometheus.NewRegistry()
	f := newFront(t, ok, d.config, func(c *Config) { c.Registerer = reg })
	client := f.client(t)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
		got := do(t, client, request(t, method, "/v2/a/blobs/uploads/", "ann", "secret", strings.NewReader(part)))
		if got.StatusCode != http.StatusInsufficientStorage || !strings.Contains(got.body, "500.0 MiB free") || !strings.Contains(got.body, "1.0 GiB") || !strings.Contains(got.body, "trustcast registry gc") {
			t.Errorf("%s: %s %s", method, got.Status, got.body)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodDelete} {
		if got := do(t, client, request(t, method, "/v2/a/manifests/latest", "ann", "secret", nil)); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", method, got.Status)
		}
	}
	must(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP trustcast_edge_free_bytes Bytes free for the registry's data; NaN when that cannot be known.
# TYPE trustcast_edge_free_bytes gauge
trustcast_edge_free_bytes 5.24288e+08
`), "trustcast_edge_free_bytes"))
	must(t, f.Quiet(t.Context())) // a refused write is over
}

func TestDiskIsLookedAtOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		d.free.Store(2 << 30)
		cfg := Config{Domain: domain}
		d.config(&cfg)
		e := New(cfg)
		for range 100 {
			if why := e.space.refuses(); why != nil {
				t.Fatal(why.message)
			}
		}
		if n := d.looks.Load(); n != 1 {
			t.Errorf("%d looks", n)
		}
		d.free.Store(0)
		time.Sleep(lookEvery) // simulated
		if e.space.refuses() == nil || d.looks.Load() != 2 {
			t.Error("the second look was none")
		}
		d.free.Store(2 << 30)
		time.Sleep(lookEvery)
		if e.space.refuses() != nil {
			t.Error("there is room again")
		}
	})
}

func TestFreeThatNobodyKnows(t *testing.T) {
	e := New(Config{Domain: domain, MinFree: 1, Free: func() (uint64, error) { return 0, errors.New("broken") }})
	if e.space.refuses() != nil || e.space.exhausted() != nil {
		t.Error("refused on no ground")
	}
	free, err := FreeIn(t.TempDir())()
	if err != nil || free == 0 {
		t.Errorf("%d bytes free, %v", free, err)
	}
	if _, err := FreeIn("/nowhere")(); err == nil {
		t.Error("nowhere is something free")
	}
}

// A body that goes on for long is cut when the reserve is near, whoever answers.
func TestBodyIsCutAtTheReserve(t *testing.T) {
	var got atomic.Int64
	handler := func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		got.Store(n)
		if err != nil {
			w.Header().Set("Content-Length", "7")
			w.WriteHeader(http.StatusInternalServerError) // what it makes of its half
			_, _ = io.WriteString(w, "strange")
		}
	}
	for _, behindSocket := range []bool{false, true} {
		d := &disk{}
		d.free.Store(2 << 30)
		f := newFront(t, handler, d.config)
		f.space.mu.Lock()
		f.space.every = 0 // or much comes through within a second
		f.space.mu.Unlock()
		if behindSocket {
			f.Serve(endpoints(newReplica(t, "a", handler)))
		}
		client := f.client(t)
		full := &filling{disk: d, at: 12 << 20, body: bytes.NewReader(make([]byte, 1<<30))}
		resp, err := client.Do(request(t, http.MethodPatch, "/v2/a/blobs/uploads/1", "ann", "secret", full))
		if err != nil {
			t.Fatalf("behind a socket %v: %v", behindSocket, err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusInsufficientStorage || !strings.Contains(string(body), "free") {
			t.Errorf("behind a socket %v: %s %s", behindSocket, resp.Status, body)
		}
		until(t, func() bool { return got.Load() > 0 })
		if n := got.Swap(0); n > 64<<20 {
			t.Errorf("behind a socket %v: %d MiB came through", behindSocket, n>>20)
		}
		if l := f.Load()[0]; l.Failures != 0 {
			t.Errorf("%+v", l)
		}
	}
}

// filling is a body after whose first part the disk is full.
type filling struct {
	disk *disk
	at   int
	body io.Reader
}

func (f *filling) Read(p []byte) (int, error) {
	n, err := f.body.Read(p)
	if f.at -= n; f.at < 0 {
		f.disk.free.Store(100 << 20)
	}
	return n, err
}

func TestBytesInWords(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 500 << 20: "500.0 MiB", 3 << 40: "3.0 TiB", 1 << 63: "8.0 EiB"} {
		if got := inWords(bytes); got != want {
			t.Errorf("%d is %q, want %q", bytes, got, want)
		}
	}
}
