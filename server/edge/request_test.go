package edge

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestRefusals(t *testing.T) {
	f := newFront(t, func(http.ResponseWriter, *http.Request) { t.Error("the engine was asked") })
	client := f.client(t)
	for name, c := range map[string]struct {
		path, user, password string
		want                 int
	}{
		"nobody":            {"/v2/", "", "", http.StatusUnauthorized},
		"wrong password":    {"/v2/", "ann", "wrong", http.StatusUnauthorized},
		"unknown user":      {"/v2/", "bob", "secret", http.StatusUnauthorized},
		"empty password":    {"/v2/", "ann", "", http.StatusUnauthorized},
		"a repository":      {"/v2/app/manifests/latest", "", "", http.StatusUnauthorized},
		"without slash":     {"/v2", "", "", http.StatusUnauthorized},
		"too long":          {"/v2/", "ann", strings.Repeat("x", 2*maxAuthorization), http.StatusRequestHeaderFieldsTooLarge},
		"outside":           {"/", "ann", "secret", http.StatusNotFound},
		"debug pages":       {"/debug/vars", "ann", "secret", http.StatusNotFound},
		"metrics":           {"/metrics", "ann", "secret", http.StatusNotFound},
		"looks like inside": {"/v22/", "ann", "secret", http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			got := get(t, client, c.path, c.user, c.password)
			if got.StatusCode != c.want {
				t.Fatalf("%s, want %d", got.Status, c.want)
			}
			if c.want == http.StatusNotFound {
				return
			}
			var said struct {
				Errors []struct{ Code, Message string }
			}
			must(t, json.Unmarshal([]byte(got.body), &said))
			if len(said.Errors) != 1 || said.Errors[0].Code != "UNAUTHORIZED" || said.Errors[0].Message == "" {
				t.Errorf("body %s", got.body)
			}
			if h := got.Header.Get("Docker-Distribution-Api-Version"); h != "registry/2.0" {
				t.Errorf("version header %q", h)
			}
			if h := got.Header.Get("WWW-Authenticate"); c.want == http.StatusUnauthorized && h != `Basic realm="trustcast"` {
				t.Errorf("challenge %q", h)
			}
		})
	}
}

func TestMalformedAuthorization(t *testing.T) {
	f := newFront(t, func(http.ResponseWriter, *http.Request) { t.Error("the engine was asked") })
	client := f.client(t)
	for _, value := range []string{"", "Basic", "Basic !!!", "Basic YW5u", "Bearer x", "Basic YW5uOnNlY3JldA", "Digest YW5uOnNlY3JldA=="} {
		req := request(t, http.MethodGet, "/v2/", "", "", nil)
		req.Header.Set("Authorization", value)
		if got := do(t, client, req); got.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q: %s", value, got.Status)
		}
	}
}

func TestNoUsers(t *testing.T) {
	f := newFront(t, ok)
	f.people.remove("ann")
	client := f.client(t)
	for _, user := range []string{"", "ann", "docker"} {
		if got := get(t, client, "/v2/", user, "secret"); got.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q: %s", user, got.Status)
		}
	}
}

func TestHeadersForTheEngine(t *testing.T) {
	var seen http.Header
	f := newFront(t, func(w http.ResponseWriter, r *http.Request) { seen = r.Header; ok(w, r) })
	req := request(t, http.MethodGet, "/v2/", "ann", "secret", nil)
	req.Host = "registry.test:5000"
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "x-forwarded-user", "X-Real-IP", "Proxy-Authorization"} {
		req.Header.Set(name, "forged")
	}
	req.Header.Set("Accept", "application/json")
	if got := do(t, f.client(t), req); got.StatusCode != http.StatusOK {
		t.Fatal(got.Status)
	}
	for name, values := range seen {
		if strings.Contains(strings.Join(values, ","), "forged") || name == "Authorization" {
			t.Errorf("the engine got %s: %q", name, values)
		}
	}
	if seen.Get("X-Forwarded-Proto") != "https" || seen.Get("X-Forwarded-Host") != "registry.test:5000" || seen.Get("Accept") != "application/json" {
		t.Errorf("the engine got %v", seen)
	}
}

func TestHeaderIsLimited(t *testing.T) {
	f := newFront(t, ok)
	req := request(t, http.MethodGet, "/v2/", "ann", "secret", nil)
	req.Header.Set("X-Long", strings.Repeat("x", 2*maxHeader))
	if got := do(t, f.client(t), req); got.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s", got.Status)
	}
}

func TestPanicOfTheEngine(t *testing.T) {
	f := newFront(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/early":
			panic("early")
		case "/v2/late":
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			panic("late")
		}
		ok(w, r)
	})
	client := f.client(t)
	if got := get(t, client, "/v2/early", "ann", "secret"); got.StatusCode != http.StatusInternalServerError {
		t.Errorf("early: %s", got.Status)
	}
	resp, err := client.Do(request(t, http.MethodGet, "/v2/late", "ann", "secret", nil))
	must(t, err)
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a response that broke off looks whole")
	}
	_ = resp.Body.Close()
	if got := get(t, client, "/v2/", "ann", "secret"); got.StatusCode != http.StatusOK {
		t.Errorf("after the panics: %s", got.Status)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := newFront(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "missing") {
			http.NotFound(w, r)
		}
	}, func(c *Config) { c.Registerer = reg })
	client := f.client(t)
	get(t, client, "/v2/", "", "")
	get(t, client, "/v2/", "ann", "secret")
	get(t, client, "/v2/a/blobs/sha256:1", "ann", "secret")
	get(t, client, "/v2/a/blobs/sha256:2", "ann", "secret")
	get(t, client, "/v2/a/manifests/missing", "ann", "secret")
	do(t, client, request(t, "BREW", "/v2/a/b", "ann", "wrong", nil))
	f.Gate(Closed)
	get(t, client, "/v2/", "ann", "secret")
	must(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP trustcast_edge_certificate_refusals_total Handshakes that clients ended because they do not trust the certificate.
# TYPE trustcast_edge_certificate_refusals_total counter
trustcast_edge_certificate_refusals_total 0
# HELP trustcast_edge_direct_total Reads answered from the registry's files, without an endpoint.
# TYPE trustcast_edge_direct_total counter
trustcast_edge_direct_total 0
# HELP trustcast_edge_endpoint_failing 1 while an endpoint fails and gets no requests.
# TYPE trustcast_edge_endpoint_failing gauge
trustcast_edge_endpoint_failing{endpoint="embedded-1"} 0
# HELP trustcast_edge_endpoint_failures_total How often an endpoint was taken out because it failed.
# TYPE trustcast_edge_endpoint_failures_total counter
trustcast_edge_endpoint_failures_total{endpoint="embedded-1"} 0
# HELP trustcast_edge_endpoint_requests_in_flight Requests being answered now, by endpoint.
# TYPE trustcast_edge_endpoint_requests_in_flight gauge
trustcast_edge_endpoint_requests_in_flight{endpoint="embedded-1"} 0
# HELP trustcast_edge_refused_total Requests of signed-in users that the edge refused: paused, collecting, stopped, unanswered, crowded, stopping, left, broken, unfit, space.
# TYPE trustcast_edge_refused_total counter
trustcast_edge_refused_total{reason="broken"} 0
trustcast_edge_refused_total{reason="collecting"} 0
trustcast_edge_refused_total{reason="crowded"} 0
trustcast_edge_refused_total{reason="left"} 0
trustcast_edge_refused_total{reason="paused"} 0
trustcast_edge_refused_total{reason="space"} 0
trustcast_edge_refused_total{reason="stopped"} 1
trustcast_edge_refused_total{reason="stopping"} 0
trustcast_edge_refused_total{reason="unanswered"} 0
trustcast_edge_refused_total{reason="unfit"} 0
# HELP trustcast_edge_requests_held Requests that wait behind the gate or for an endpoint.
# TYPE trustcast_edge_requests_held gauge
trustcast_edge_requests_held 0
# HELP trustcast_edge_requests_in_flight Requests being answered now.
# TYPE trustcast_edge_requests_in_flight gauge
trustcast_edge_requests_in_flight 0
# HELP trustcast_edge_requests_total Requests answered, by method, route and status code.
# TYPE trustcast_edge_requests_total counter
trustcast_edge_requests_total{code="200",method="GET",route="base"} 1
trustcast_edge_requests_total{code="200",method="GET",route="blob"} 2
trustcast_edge_requests_total{code="401",method="GET",route="base"} 1
trustcast_edge_requests_total{code="401",method="other",route="other"} 1
trustcast_edge_requests_total{code="404",method="GET",route="manifest"} 1
trustcast_edge_requests_total{code="503",method="GET",route="base"} 1
# HELP trustcast_edge_retries_total Requests sent again because an endpoint failed before it answered.
# TYPE trustcast_edge_retries_total counter
trustcast_edge_retries_total 0
# HELP trustcast_edge_sign_ins_total Sign-ins: remembered (no bcrypt), accepted, refused, limited (too many wrong passwords before), anonymous.
# TYPE trustcast_edge_sign_ins_total counter
trustcast_edge_sign_ins_total{result="accepted"} 1
trustcast_edge_sign_ins_total{result="anonymous"} 1
trustcast_edge_sign_ins_total{result="limited"} 0
trustcast_edge_sign_ins_total{result="refused"} 1
trustcast_edge_sign_ins_total{result="remembered"} 4
`)))
}

func TestRoutes(t *testing.T) {
	for path, want := range map[string]string{
		"/v2/":                            routeBase,
		"/v2/_catalog":                    routeCatalog,
		"/v2/a/manifests/latest":          routeManifest,
		"/v2/a/b/c/manifests/sha256:1":    routeManifest,
		"/v2/a/blobs/sha256:1":            routeBlob,
		"/v2/a/blobs/uploads/":            routeUpload,
		"/v2/a/blobs/uploads":             routeUpload,
		"/v2/a/blobs/uploads/1-2":         routeUpload,
		"/v2/a/tags/list":                 routeTags,
		"/v2/blobs/manifests/tags/list":   routeTags,
		"/v2/tags/list/blobs/sha256:1":    routeBlob,
		"/v2/manifests/x/blobs/uploads/1": routeUpload,
		"/v2/a/referrers/sha256:1":        routeOther,
		"/v2/manifests/latest":            routeOther,
		"/v2/a":                           routeOther,
		"/v2":                             routeOther,
		"/":                               routeOther,
		"":                                routeOther,
	} {
		if got := routeOf(path); got != want {
			t.Errorf("routeOf(%q) = %s, want %s", path, got, want)
		}
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkRequestRemembered is all that the edge adds to a request of a user
// who is signed in, but for TLS.
func BenchmarkRequestRemembered(b *testing.B) {
	p := newPeople(b, map[string]string{"ann": "secret"})
	e := New(Config{Domain: domain, Hash: p.hash, DummyHash: func() []byte { return p.dummy }})
	e.Serve([]Endpoint{{ID: "embedded-1", Handler: http.HandlerFunc(ok)}})
	req := request(b, http.MethodGet, "/v2/a/manifests/latest", "ann", "secret", nil)
	b.ReportAllocs()
	for b.Loop() {
		e.ServeHTTP(discard{http.Header{}}, req)
	}
}
