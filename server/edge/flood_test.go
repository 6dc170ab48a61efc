package edge

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// seen is all that a client learns from an answer.
type seen struct {
	status int
	header http.Header
	body   string
}

// askedBy answers a request as it comes from an address, without a network.
func (e *Edge) askedBy(t testing.TB, from, user, password string, change ...func(*http.Request)) seen {
	t.Helper()
	req := request(t, http.MethodGet, "/v2/app/manifests/v1", user, password, nil)
	req.RemoteAddr = from
	for _, c := range change {
		c(req)
	}
	out := httptest.NewRecorder()
	e.ServeHTTP(out, req)
	got := out.Result()
	body, err := io.ReadAll(got.Body)
	must(t, err)
	return seen{got.StatusCode, got.Header, string(body)}
}

// newGuardedEdge has the user ann and a bcrypt that only takes its time.
func newGuardedEdge(log io.Writer) *Edge {
	g := newGuarded(map[string]string{"ann": "secret"})
	e := New(Config{Domain: domain, Hash: g.people.hash, DummyHash: func() []byte { return g.people.dummy }, Log: slog.New(slog.NewTextHandler(log, nil))})
	e.signIn.compare = g.fake
	e.Serve([]Endpoint{{ID: "embedded-1", Handler: http.HandlerFunc(ok)}})
	return e
}

// No answer to a guess tells whether its user exists, before and beyond the limits.
func TestAnswersTellNoUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string][]seen{}
		for user, from := range map[string]string{"ann": "192.0.2.1:1", "nobody": "192.0.2.2:1"} {
			e := newGuardedEdge(io.Discard)
			for i := range 2 * guessesPerAddress {
				answers[user] = append(answers[user], e.askedBy(t, from, user, fmt.Sprint("guess ", i)))
			}
		}
		if diff := cmp.Diff(answers["ann"], answers["nobody"], cmp.AllowUnexported(seen{})); diff != "" {
			t.Errorf("a user that there is and one that there is not (-, +):\n%s", diff)
		}
		first, last := answers["ann"][0], answers["ann"][2*guessesPerAddress-1]
		if first.status != http.StatusUnauthorized || first.header.Get("Retry-After") != "" {
			t.Errorf("the first answer is %v", first)
		}
		if last.status != http.StatusTooManyRequests || !strings.Contains(last.body, `"TOOMANYREQUESTS"`) {
			t.Errorf("the last answer is %v", last)
		}
		// It is forgiven since it was counted; bcrypts took some of that time.
		wait, err := time.ParseDuration(last.header.Get("Retry-After") + "s")
		must(t, err)
		if wait <= 0 || wait > forgiveEvery {
			t.Errorf("try again after %v", wait)
		}
	})
}

// What clients say about where they come from counts for nothing.
func TestGuessesCountByConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newGuardedEdge(io.Discard)
		codes := map[int]int{}
		for i := range 2 * guessesPerAddress {
			forged := func(r *http.Request) {
				for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "True-Client-IP"} {
					r.Header.Set(name, attacker(i))
				}
				r.Header.Set("Forwarded", "for="+attacker(i))
			}
			codes[e.askedBy(t, "192.0.2.1:1", "ann", fmt.Sprint("guess ", i), forged).status]++
		}
		if want := map[int]int{http.StatusUnauthorized: guessesPerAddress, http.StatusTooManyRequests: guessesPerAddress}; !maps.Equal(codes, want) {
			t.Errorf("%v", codes)
		}
		if got := e.askedBy(t, "192.0.2.2:1", "ann", "secret"); got.status != http.StatusOK {
			t.Errorf("ann: %v", got)
		}
	})
}

// The log tells of a flood once a minute, the metrics of each refusal.
func TestFloodIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		e := newGuardedEdge(&log)
		began := time.Now()
		refusals := 0
		for i := 0; time.Since(began) < 3*sayEvery+sayEvery/2; i++ {
			for _, from := range []string{"192.0.2.1:1", "192.0.2.2:1"} {
				if e.askedBy(t, from, "ann", fmt.Sprint(from, " guess ", i)).status == http.StatusTooManyRequests {
					refusals++
				}
			}
			time.Sleep(100 * time.Millisecond) // simulated
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) < 3 || len(lines) > 4 {
			t.Errorf("%d lines:\n%s", len(lines), &log)
		}
		last := lines[len(lines)-1]
		if !strings.Contains(last, "addresses=2 users=") || !strings.Contains(last, "latest=192.0.2.") || strings.Contains(log.String(), "ann") {
			t.Errorf("it says %s", last)
		}
		if got := int(testutil.ToFloat64(e.metrics.signIns.WithLabelValues(limited))); got != refusals {
			t.Errorf("the metric counts %d refusals, want %d", got, refusals)
		}
	})
}

func BenchmarkSignInLimited(b *testing.B) {
	c := newCounted(b, map[string]string{"ann": "secret"})
	for i := range guessesPerAddress {
		c.want(b, "ann", fmt.Sprint("guess ", i), refused, 1)
	}
	b.ReportAllocs()
	for b.Loop() {
		if result, _, err := c.check(b.Context(), here, "ann", "one more"); result != limited || err != nil {
			b.Fatalf("%s, %v", result, err)
		}
	}
}
