//go:build linux

package fleet_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// excuses are the spans of time in which a pull of a host may fail because the
// network or the server was taken away. They never excuse a failure of trust or
// of sign-in.
type excuses struct {
	mu    sync.Mutex // guards spans
	spans []*span
}

type span struct {
	host     string // "": every host
	why      string
	from, to time.Time // to is zero while it lasts
}

// begin opens a span; the returned function closes it.
func (e *excuses) begin(host, why string) (end func()) {
	s := &span{host: host, why: why, from: time.Now()}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.spans = append(e.spans, s)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		s.to = time.Now()
	}
}

var (
	// noExcuse: the answer came, and it was one of trust or of sign-in.
	noExcuse = regexp.MustCompile(`(?i)x509|certificate|\btls: |unknown authority|unauthorized|authentication|denied|manifest unknown`)
	// unreached is how a pull fails when its packets do not arrive.
	unreached = regexp.MustCompile(`(?i)timeout|timed out|refused|reset|\bEOF\b|no route|unreachable|broken pipe|deadline exceeded|canceled|signal: killed`)
)

// reason says which trouble excuses a pull that failed, or "": none does.
func (e *excuses) reason(host string, begin, end time.Time, err error) string {
	said := err.Error()
	if noExcuse.MatchString(said) || !unreached.MatchString(said) {
		return ""
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.spans, func(s *span) bool {
		return (s.host == "" || s.host == host) && !s.from.After(end) && (s.to.IsZero() || !s.to.Before(begin))
	})
	if i < 0 {
		return ""
	}
	return e.spans[i].why
}

// TestExcuses shows that the chaos could fail: trust is never excused, and
// nothing is outside the trouble that the schedule made.
func TestExcuses(t *testing.T) {
	var e excuses
	before := time.Now().Add(-time.Minute)
	e.begin("h1", "link down")()
	end := e.begin("h2", "packet loss")
	defer end()
	now := time.Now()
	for _, c := range []struct {
		host       string
		begin, end time.Time
		said, want string
	}{
		{"h1", before, now, "dial tcp 10.0.0.1:5000: connect: no route to host", "link down"},
		{"h1", before, before.Add(time.Second), "dial tcp 10.0.0.1:5000: connect: no route to host", ""},
		{"h1", now.Add(time.Second), now.Add(time.Minute), "dial tcp: i/o timeout", ""},
		{"h3", before, now, "dial tcp: i/o timeout", ""},
		{"h2", now.Add(time.Minute), now.Add(time.Hour), "net/http: TLS handshake timeout", "packet loss"},
		{"h2", now, now, "x509: certificate signed by unknown authority (timeout)", ""},
		{"h2", now, now, "remote error: tls: bad certificate", ""},
		{"h2", now, now, "unauthorized: authentication required", ""},
		{"h2", now, now, "something that nobody thought of", ""},
	} {
		if got := e.reason(c.host, c.begin, c.end, errors.New(c.said)); got != c.want {
			t.Errorf("%s, %s: excused by %q, want %q", c.host, c.said, got, c.want)
		}
	}
}

// tally counts by name, for the figures.
type tally map[string]int

func (c tally) String() string {
	var parts []string
	for name, n := range c {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
