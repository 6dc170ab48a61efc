package edge

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// at is the name that clients of these tests use, which is not where they connect.
const at = "registry.test:5000"

// gives sends a request to an edge before one replica, and returns the answer.
func gives(t *testing.T, method, path string, to Endpoint, f *front) answer {
	t.Helper()
	f.Serve([]Endpoint{to})
	req := request(t, method, path, "ann", "secret", nil)
	req.Host = at
	client := f.client(t)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return do(t, client, req)
}

// staysIn fails the test when an answer that is withheld takes its endpoint out.
func staysIn(t *testing.T) func(*Config) {
	return func(c *Config) { c.Failed = func(id string, err error) { t.Errorf("%s was taken out: %v", id, err) } }
}

// Where an endpoint sends clients, they send their passwords.
func TestWhereAnswersLead(t *testing.T) {
	const uploads, blob, tags = "/v2/a/blobs/uploads/", "/v2/a/blobs/sha256:1", "/v2/a/tags/list"
	for _, c := range []struct {
		method, path   string
		status         int
		name, says     string
		want           string // "": withheld
		wantRedirected string // when the operator's storage is far; "": as want
	}{
		{http.MethodPost, uploads, 202, "Location", "https://" + at + "/v2/a/x?_state=%3D%2F", "https://" + at + "/v2/a/x?_state=%3D%2F", ""},
		{http.MethodPost, uploads, 202, "Location", "/v2/a%2Fb/x?_state=1", "/v2/a%2Fb/x?_state=1", ""},
		{http.MethodPost, uploads, 202, "Location", "http://evil/v2/a/x?_state=1", "https://" + at + "/v2/a/x?_state=1", ""},
		{http.MethodPost, uploads, 202, "Location", "http://" + at + "/v2/a/x", "https://" + at + "/v2/a/x", ""},
		{http.MethodPost, uploads, 202, "Location", "//evil/v2/a/x", "https://" + at + "/v2/a/x", ""},
		{http.MethodPost, uploads, 202, "Location", "https://u:p@" + at + "/v2/a/x", "https://" + at + "/v2/a/x", ""},
		{http.MethodPost, uploads, 202, "Location", "http://evil/upload", "", ""},
		{http.MethodPost, uploads, 202, "Location", "//evil/upload", "", ""},
		{http.MethodPost, uploads, 202, "Location", "///evil/v2/", "", ""},
		{http.MethodPost, uploads, 202, "Location", `/\evil/v2/`, `/%5Cevil/v2/`, ""},
		{http.MethodPost, uploads, 202, "Location", "http:evil/v2/", "", ""},
		{http.MethodPost, uploads, 202, "Location", "v2/a/x", "", ""},
		{http.MethodPost, uploads, 307, "Location", "http://evil/upload", "", ""},
		{http.MethodPatch, uploads + "1", 202, "Location", "http://evil/upload", "", ""},
		{http.MethodPut, uploads + "1", 201, "Location", "http://evil/blob", "", ""},
		{http.MethodGet, blob, 307, "Location", "https://storage/b?sig=1", "", "https://storage/b?sig=1"},
		{http.MethodHead, blob, 307, "Location", "https://storage/b?sig=1", "", "https://storage/b?sig=1"},
		{http.MethodGet, uploads + "1", 204, "Location", "http://evil/upload", "", ""},
		{http.MethodGet, "/v2/a/../b", 301, "Location", "/v2/b", "/v2/b", ""},
		{http.MethodGet, "/v2/../b", 301, "Location", "/b", "/b", ""}, // is the client's own doing
		{http.MethodGet, tags, 200, "Link", `</v2/a/tags/list?last=b&n=1>; rel="next"`, `</v2/a/tags/list?last=b&n=1>; rel="next"`, ""},
		{http.MethodGet, tags, 200, "Link", `<http://evil/v2/a/tags/list?n=1>; rel="next"`, `<https://` + at + `/v2/a/tags/list?n=1>; rel="next"`, ""},
		{http.MethodGet, tags, 200, "Link", `<http://evil/tags>; rel="next"`, "", ""},
		{http.MethodGet, tags, 200, "Link", `</v2/a>; rel="x", <http://evil/>; rel="next"`, "", ""},
		{http.MethodGet, tags, 200, "Link", `http://evil/>; rel="next"`, "", ""},
	} {
		t.Run(fmt.Sprintf("%s %d %s", c.method, c.status, c.says), func(t *testing.T) {
			a := newReplica(t, "a", failing(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()[c.name] = []string{c.says, "http://evil/second"}
				w.WriteHeader(c.status)
			}))
			f := newBalanced(t, nil, staysIn(t))
			to := a.endpoint()
			for _, redirects := range []bool{false, true} {
				to.Redirects = redirects
				f.Serve(nil) // forget how it was
				got := gives(t, c.method, c.path, to, f)
				want, status := c.want, c.status
				if redirects && c.wantRedirected != "" {
					want = c.wantRedirected
				}
				if want == "" {
					status = http.StatusBadGateway
				}
				values := got.Header.Values(c.name)
				if strings.Contains(got.body, "sig=") {
					t.Errorf("the refusal signs for access: %s", got.body)
				}
				if got.StatusCode != status || strings.Join(values, " ") != want {
					t.Errorf("redirects %v: %s, %s: %q, want %d and %q", redirects, got.Status, c.name, values, status, want)
				}
			}
			if n := a.asked.Load(); n != 2 {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
}

// A sign-in that an endpoint asks for would get the passwords of the edge's users.
// A mirror's registry may refuse the mirror, which is no reason to take it out.
func TestEndpointsAskForNoSignIn(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusForbidden} {
		a := newReplica(t, "a", failing(func(w http.ResponseWriter, _ *http.Request) {
			for _, name := range []string{"WWW-Authenticate", "Proxy-Authenticate"} {
				w.Header().Set(name, `Bearer realm="http://evil/token"`)
			}
			w.WriteHeader(status)
		}))
		var log bytes.Buffer
		f := newBalanced(t, nil, staysIn(t), func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			got := gives(t, method, "/v2/a/manifests/latest", a.endpoint(), f)
			want := http.StatusBadGateway
			if status == http.StatusForbidden {
				want = status
			}
			if got.StatusCode != want || got.Header.Get("WWW-Authenticate")+got.Header.Get("Proxy-Authenticate") != "" {
				t.Errorf("%d: %s, %v", status, got.Status, got.Header)
			}
			if want == http.StatusBadGateway && !strings.Contains(got.body, "registry.proxy.password") {
				t.Errorf("%d: it says %s", status, got.body)
			}
		}
		f.close(t)
		if n := strings.Count(log.String(), "was withheld"); n > 1 || (n == 1) != (status != http.StatusForbidden) {
			t.Errorf("%d: the log tells it %d times", status, n)
		}
	}
}

// What is about more than one answer is the operator's to say.
func TestHeadersOfTheWholeName(t *testing.T) {
	a := newReplica(t, "a", func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"Set-Cookie", "Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data", "Refresh", "Access-Control-Allow-Origin", "Nel", "X-Mine"} {
			w.Header().Set(name, "evil")
		}
		w.Header()["Access-Control-Allow-Methods"] = []string{"GET", "HEAD"}
		w.Header().Set("Trailer", "X-Late")
		_, _ = io.WriteString(w, "{}")
		w.Header().Set("X-Late", "evil")
		w.Header().Set(http.TrailerPrefix+"X-Later", "evil")
	})
	f := newBalanced(t, nil)
	to := a.endpoint()
	to.Header = http.Header{"Access-Control-Allow-Methods": {"GET", "HEAD"}, "Access-Control-Allow-Origin": {"https://ui.test"}}
	got := gives(t, http.MethodGet, "/v2/_catalog", to, f)
	for name, values := range got.Header {
		if name != "X-Mine" && strings.Contains(strings.Join(values, ","), "evil") {
			t.Errorf("the client got %s: %q", name, values)
		}
	}
	if got.Header.Get("X-Mine") == "" || len(got.Header.Values("Access-Control-Allow-Methods")) != 2 {
		t.Errorf("the client did not get what is harmless, or the operator's: %v", got.Header)
	}
	if len(got.Trailer) > 0 {
		t.Errorf("the client got %v behind the body", got.Trailer)
	}
}

// raw answers on each connection of a replica with these bytes, and ends it.
func raw(t *testing.T, bytes string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, bytes) // the edge may have had enough
		_ = conn.Close()
	}
}

// What an endpoint says of itself reaches operators' terminals, and goes through
// protobuf, which takes UTF-8 alone.
func TestWordsOfAnEndpoint(t *testing.T) {
	for _, says := range []string{
		"HTTP/1.1 500 \x1b[2J\xff" + strings.Repeat("x", 30_000) + "\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\x1b[2J\xff" + strings.Repeat("x", 30_000) + "\r\n\r\n",
	} {
		a := newReplica(t, "a", raw(t, says))
		told := make(chan error, 1)
		f := newBalanced(t, []*replica{a}, func(c *Config) {
			c.Failed = func(_ string, err error) {
				select {
				case told <- err:
				default:
				}
			}
		})
		until(t, func() bool { return !isWell(f, "a")() })
		l, _ := f.loadOf("a")
		for _, text := range []string{l.Problem, (<-told).Error()} {
			if len(text) > maxSaid || !utf8.ValidString(text) || strings.Contains(text, "\x1b") {
				t.Errorf("%d bytes: %.200q", len(text), text)
			}
		}
	}
}

// Headers are kept in memory until the answer is there.
func TestLargeHeaders(t *testing.T) {
	header := "X-Large: " + strings.Repeat("x", maxAnswerHeader) + "\r\n"
	for name, says := range map[string]string{
		"answer":        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + header + "\r\n",
		"informational": "HTTP/1.1 103 Early Hints\r\n" + header + "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"many":          strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxInformational+1) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			a := newReplica(t, "a", failing(raw(t, says)))
			f := newBalanced(t, nil)
			if got := gives(t, http.MethodPost, "/v2/a/blobs/uploads/", a.endpoint(), f); got.StatusCode != http.StatusBadGateway {
				t.Errorf("%s, %d header bytes", got.Status, len(got.Header.Get("X-Large")))
			}
			if got := newProxyOf(a).health(t.Context()); got != nil {
				t.Errorf("the control: %v", got)
			}
		})
	}
	a := newReplica(t, "a", raw(t, "HTTP/1.1 200 OK\r\n"+header+"\r\n"))
	if newProxyOf(a).health(t.Context()) == nil {
		t.Error("it is well")
	}
}

func newProxyOf(r *replica) *proxy { return newProxy(r.socket, 0, slog.New(slog.DiscardHandler)) }

// What comes before the answer stays with the edge.
func TestInformationalAnswers(t *testing.T) {
	a := newReplica(t, "a", raw(t, "HTTP/1.1 103 Early Hints\r\nLink: <http://evil/>; rel=preload\r\nSet-Cookie: evil\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f := newBalanced(t, nil)
	f.Serve([]Endpoint{a.endpoint()})
	informed := func(status int, header textproto.MIMEHeader) error { return fmt.Errorf("%d came, %v", status, header) }
	req := request(t, http.MethodGet, "/v2/a/tags/list", "ann", "secret", nil)
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got1xxResponse: informed}))
	if got := do(t, f.client(t), req); got.StatusCode != http.StatusOK || got.body != "{}" || got.Header.Get("Set-Cookie") != "" {
		t.Errorf("%s %v", got.Status, got.Header)
	}
}

// A registry repeats a path in its answer, escaped: that is no reason to take it out.
func TestLongPathsTakeNobodyOut(t *testing.T) {
	a := newReplica(t, "a", failing(func(w http.ResponseWriter, r *http.Request) {
		place := *r.URL
		place.Path, place.RawPath = strings.ReplaceAll(place.Path, "//", "/"), ""
		w.Header().Set("Location", place.String())
		w.WriteHeader(http.StatusMovedPermanently)
	}))
	f := newBalanced(t, nil, staysIn(t))
	f.Serve([]Endpoint{a.endpoint()})
	req := request(t, http.MethodGet, "/v2/", "ann", "secret", nil)
	req.URL.Opaque = "/v2//" + strings.Repeat("\xff", maxHeader-1000)
	client := f.client(t)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if got := do(t, client, req); got.StatusCode != http.StatusMovedPermanently || len(got.Header.Get("Location")) < 3*(maxHeader-1000) {
		t.Errorf("%s, Location of %d bytes", got.Status, len(got.Header.Get("Location")))
	}
}

func TestTellsOfWithheldAnswers(t *testing.T) {
	e := New(Config{Domain: domain})
	e.Serve([]Endpoint{{ID: "a", Socket: "/nowhere"}})
	one, _ := e.balance.choose()
	now := time.Now()
	for after, want := range []bool{true, false} {
		if got := e.balance.tell(one, now.Add(time.Duration(after)*time.Second)); got != want {
			t.Errorf("after %d s: %v", after, got)
		}
	}
	if !e.balance.tell(one, now.Add(tellEvery)) {
		t.Error("never again")
	}
}
