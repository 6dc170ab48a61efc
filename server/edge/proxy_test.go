package edge

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func hijackAndClose(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// failing is a handler that breaks off, but is well when asked for its health.
func failing(breakOff http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			ok(w, r)
			return
		}
		breakOff(w, r)
	}
}

func TestRequestAsTheSocketGetsIt(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	a := newReplica(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "latest") {
			seen.Store(r)
		}
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Location", "https://"+r.Header.Get("X-Forwarded-Host")+"/here")
		ok(w, r)
	})
	f := newBalanced(t, []*replica{a})
	req := request(t, http.MethodGet, "/v2/a%2Fb/manifests/latest?n=1;2&_state=%3D", "ann", "secret", nil)
	req.Host = "registry.test:5000"
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Real-Ip", "Proxy-Authorization"} {
		req.Header.Set(name, "forged")
	}
	req.Header.Set("Connection", "X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Mine, Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("X-Mine", "1")
	req.Header.Set("Accept-Encoding", "identity")
	got := do(t, f.client(t), req)
	r := seen.Load()
	if got.StatusCode != http.StatusOK || r == nil {
		t.Fatalf("%s", got.Status)
	}
	for name, values := range r.Header {
		if strings.Contains(strings.Join(values, ","), "forged") || name == "Authorization" || name == "X-Mine" || name == "Upgrade" || name == "Connection" {
			t.Errorf("the endpoint got %s: %q", name, values)
		}
	}
	for name, want := range map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "registry.test:5000", "X-Forwarded-For": "127.0.0.1", "Accept-Encoding": "identity"} {
		if got := r.Header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("the endpoint got %s: %q, want %q", name, got, want)
		}
	}
	if r.Host != "registry.test:5000" || r.RequestURI != "/v2/a%2Fb/manifests/latest?n=1;2&_state=%3D" {
		t.Errorf("the endpoint got %s of %s", r.RequestURI, r.Host)
	}
	if got.Header.Get("X-Hop") != "" || got.Header.Get("Location") != "https://registry.test:5000/here" {
		t.Errorf("the client got %v", got.Header)
	}
}

// A client's mistakes are not the endpoint's failures.
func TestClientsDoNotTakeEndpointsOut(t *testing.T) {
	a := newReplica(t, "a", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(make([]byte, 4<<20))
	})
	f := newBalanced(t, []*replica{a}, func(c *Config) {
		c.Failed = func(id string, err error) { t.Errorf("%s was taken out: %v", id, err) }
	})
	client := f.client(t)
	breaks := errors.New("the disk of the client broke")
	req := request(t, http.MethodPatch, "/v2/a/blobs/uploads/1", "ann", "secret", io.MultiReader(strings.NewReader(part), readerFunc(func([]byte) (int, error) { return 0, breaks })))
	if _, err := client.Do(req); !errors.Is(err, breaks) {
		t.Errorf("an upload that its client broke off: %v", err)
	}
	for range 5 {
		resp, err := client.Do(request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil))
		must(t, err)
		_ = resp.Body.Close() // in the middle
	}
	until(t, func() bool { l, _ := f.loadOf("a"); return l.InFlight == 0 })
}

func TestBlobsThroughASocket(t *testing.T) {
	blob := make([]byte, 20<<20)
	_, _ = rand.Read(blob)
	var got atomic.Pointer[[]byte]
	a := newReplica(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			sent, _ := io.ReadAll(r.Body)
			got.Store(&sent)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	})
	f := newBalanced(t, []*replica{a})
	client := f.client(t)
	if down := get(t, client, "/v2/a/blobs/sha256:1", "ann", "secret"); down.body != string(blob) || down.ContentLength != int64(len(blob)) {
		t.Errorf("%d bytes came, length %d", len(down.body), down.ContentLength)
	}
	req := request(t, http.MethodGet, "/v2/a/blobs/sha256:1", "ann", "secret", nil)
	req.Header.Set("Range", "bytes=1000-1999")
	if down := do(t, client, req); down.StatusCode != http.StatusPartialContent || down.body != string(blob[1000:2000]) {
		t.Errorf("a range: %s, %d bytes", down.Status, len(down.body))
	}
	head := do(t, client, request(t, http.MethodHead, "/v2/a/blobs/sha256:1", "ann", "secret", nil))
	if head.ContentLength != int64(len(blob)) {
		t.Errorf("HEAD says %d", head.ContentLength)
	}
	for _, chunked := range []bool{false, true} {
		var body io.Reader = bytes.NewReader(blob)
		if chunked {
			body = io.MultiReader(body)
		}
		do(t, client, request(t, http.MethodPatch, "/v2/a/blobs/uploads/1", "ann", "secret", body))
		if up := got.Swap(nil); up == nil || !bytes.Equal(*up, blob) {
			t.Errorf("the upload (chunked: %v) arrived otherwise", chunked)
		}
	}
}

// What is sent again when the first endpoint ends before it answers.
func TestSentAgain(t *testing.T) {
	withBody := func() io.Reader { return strings.NewReader(part) }
	for name, c := range map[string]struct {
		method string
		body   func() io.Reader
		read   bool // the first endpoint reads the body
		want   int
	}{
		"GET":                      {http.MethodGet, nil, false, http.StatusOK},
		"HEAD":                     {http.MethodHead, nil, false, http.StatusOK},
		"DELETE":                   {http.MethodDelete, nil, false, http.StatusBadGateway},
		"POST without body":        {http.MethodPost, nil, false, http.StatusBadGateway},
		"PATCH with a body read":   {http.MethodPatch, withBody, true, http.StatusBadGateway},
		"PUT with a body read":     {http.MethodPut, withBody, true, http.StatusBadGateway},
		"GET with a body that was": {http.MethodGet, withBody, true, http.StatusBadGateway},
	} {
		t.Run(name, func(t *testing.T) {
			broken := newReplica(t, "broken", failing(func(w http.ResponseWriter, r *http.Request) {
				if c.read {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				hijackAndClose(w)
			}))
			well := newReplica(t, "well", ok)
			var out atomic.Pointer[string]
			f := newBalanced(t, []*replica{broken, well}, func(c *Config) { c.Failed = func(id string, _ error) { out.Store(&id) } })
			var body io.Reader
			if c.body != nil {
				body = c.body()
			}
			got := do(t, f.client(t), request(t, c.method, "/v2/a/blobs/sha256:1", "ann", "secret", body))
			asked := broken.asked.Load() // more than once on kept connections: net/http sees no difference to stale ones
			if got.StatusCode != c.want || asked < 1 || asked > maxConnections+1 || asked > 1 && c.want != http.StatusOK {
				t.Errorf("%s, the broken one was asked %d times", got.Status, asked)
			}
			if c.want == http.StatusBadGateway && (got.Header.Get("Retry-After") == "" || !strings.Contains(got.body, `"code":"UNAVAILABLE"`) || well.asked.Load() != 0) {
				t.Errorf("%v %s; the other was asked %d times", got.Header, got.body, well.asked.Load())
			}
			if id := out.Load(); id == nil || *id != "broken" {
				t.Error("nobody was told of the failure")
			}
		})
	}
}

// Without a connection nothing was lost: every request goes elsewhere, its body untouched.
func TestUnreachedIsSentAgain(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPost, http.MethodPatch, http.MethodPut} {
		dead := newReplica(t, "dead", ok)
		well := newReplica(t, "well", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		f := newBalanced(t, []*replica{dead, well}, func(c *Config) { c.HealthEvery = time.Hour })
		until(t, func() bool { // its health was asked, and is not for an hour
			f.balance.mu.Lock()
			defer f.balance.mu.Unlock()
			return !f.balance.serving[0].asking && !f.balance.serving[0].due.IsZero()
		})
		dead.kill()
		var body io.Reader
		if method == http.MethodPatch || method == http.MethodPut {
			body = strings.NewReader(part)
		}
		got := do(t, f.client(t), request(t, method, "/v2/a/blobs/uploads/1", "ann", "secret", body))
		if l, _ := f.loadOf("dead"); got.StatusCode != http.StatusOK || body != nil && got.body != part || l.Failures != 1 {
			t.Errorf("%s: %s %q, failures %d", method, got.Status, got.body, l.Failures)
		}
	}
}

// A small answer comes from another endpoint when the first ends in the middle
// of it; a large one breaks off, and does not look whole.
func TestBrokenInTheMiddle(t *testing.T) {
	send := func(size, sent int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			_, _ = w.Write(make([]byte, sent))
			if sent < size {
				panic(http.ErrAbortHandler)
			}
		}
	}
	for _, size := range []int{1, 1000, smallAnswer, smallAnswer + 1, 2 << 20} {
		broken := newReplica(t, "broken", failing(send(size, size/2)))
		well := newReplica(t, "well", send(size, size))
		f := newBalanced(t, []*replica{broken, well})
		resp, err := f.client(t).Do(request(t, http.MethodGet, "/v2/a/manifests/latest", "ann", "secret", nil))
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if size <= smallAnswer && (err != nil || len(body) != size || well.asked.Load() != 1) {
			t.Errorf("%d bytes: %d came, %v; the other was asked %d times", size, len(body), err, well.asked.Load())
		}
		if size > smallAnswer && (err == nil || well.asked.Load() != 0) {
			t.Errorf("%d bytes: %d came and look whole", size, len(body))
		}
		if l, _ := f.loadOf("broken"); l.Failures != 1 {
			t.Errorf("%d bytes: %d failures", size, l.Failures)
		}
	}
}

// A chunked answer has no length to miss: it must not look whole either.
func TestBrokenChunked(t *testing.T) {
	broken := newReplica(t, "broken", failing(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, part)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	f := newBalanced(t, []*replica{broken})
	resp, err := f.client(t).Do(request(t, http.MethodGet, "/v2/a/tags/list", "ann", "secret", nil))
	must(t, err)
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("an answer that broke off looks whole")
	}
	_ = resp.Body.Close()
}

// A request that breaks every endpoint comes to an end.
func TestPoison(t *testing.T) {
	broken := failing(func(w http.ResponseWriter, _ *http.Request) { hijackAndClose(w) })
	a, b := newReplica(t, "a", broken), newReplica(t, "b", broken)
	f := newBalanced(t, []*replica{a, b}, func(c *Config) { c.HealthEvery = time.Second })
	var some []func() answer // leave connections that are kept
	for range 40 {
		some = append(some, later(t, f.client(t), request(t, http.MethodGet, "/v2/", "ann", "secret", nil)))
	}
	for _, wait := range some {
		wait()
	}
	a.asked.Store(0)
	b.asked.Store(0)
	got := get(t, f.client(t), "/v2/a/manifests/latest", "ann", "secret")
	if n := a.asked.Load() + b.asked.Load(); got.StatusCode != http.StatusBadGateway || n < maxTries || n > (maxConnections+1)*maxTries { // more on kept connections, see above
		t.Errorf("%s after %d tries", got.Status, n)
	}
}

// An endpoint may answer before it has the whole body.
func TestEarlyAnswer(t *testing.T) {
	a := newReplica(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			http.Error(w, "unknown upload", http.StatusNotFound)
		}
	})
	f := newBalanced(t, []*replica{a})
	got := do(t, f.client(t), request(t, http.MethodPatch, "/v2/a/blobs/uploads/1", "ann", "secret", bytes.NewReader(make([]byte, 8<<20))))
	if got.StatusCode != http.StatusNotFound || !strings.Contains(got.body, "unknown upload") {
		t.Errorf("%s: %q", got.Status, got.body)
	}
	if l, _ := f.loadOf("a"); l.Failures != 0 {
		t.Errorf("%+v", l)
	}
}

// benchmark sends requests over connections that are kept, as clients do.
func benchmark(b *testing.B, f *front, size int64) {
	client := f.client(b)
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 16
	b.SetBytes(size)
	b.SetParallelism(4)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Do(request(b, http.MethodGet, "/v2/a/manifests/latest", "ann", "secret", nil))
			if err != nil {
				b.Error(err)
				return
			}
			if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
				b.Errorf("%d bytes, %v", n, err)
			}
			_ = resp.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

func BenchmarkEndpoints(b *testing.B) {
	for _, size := range []int64{2, 5_000, 32 << 20} {
		blob := make([]byte, size)
		handler := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			for rest := blob; len(rest) > 0; rest = rest[min(len(rest), 4<<20):] {
				_, _ = w.Write(rest[:min(len(rest), 4<<20)])
			}
		}
		b.Run(fmt.Sprintf("inprocess/%d", size), func(b *testing.B) { benchmark(b, newFront(b, handler), size) })
		b.Run(fmt.Sprintf("socket/%d", size), func(b *testing.B) {
			a := newReplica(b, "a", handler)
			benchmark(b, newBalanced(b, []*replica{a}, func(c *Config) { c.HealthEvery = time.Minute }), size)
		})
	}
}
