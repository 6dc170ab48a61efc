package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// get asks the health port.
func (s *street) get(path string) (code int, body string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.cfg.HTTPListen+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// scrape returns the metrics of a server that has a host, a user and a client.
func scrape(t *testing.T) string {
	t.Helper()
	s := newStreet(t)
	s.cfg.Version = "v0.0.0-test"
	s.open()
	s.join("web-1", "127.0.0.1")
	s.pull("127.0.0.1", true)
	s.pull("127.0.0.1", false)
	code, text := s.get("/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, text)
	}
	for _, line := range []string{
		`trustcast_build_info{goversion="go`, `trustcast_hosts{state="trusted"} 1`, `trustcast_hosts{state="gone"} 0`, `trustcast_hosts_connected 1`, `trustcast_users 1`,
		`trustcast_rotation_phase{phase="idle"} 1`, `trustcast_rotation_phase{phase="staged"} 0`, `trustcast_rotation_started_timestamp_seconds 0`, `trustcast_rotation_waiting_hosts 0`,
		`trustcast_generation 1`, `trustcast_engine_up 1`, `trustcast_backup_timestamp_seconds 0`, `process_resident_memory_bytes `,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line begins with %s", line)
		}
	}
	if _, err := s.admin.RotateCA(t.Context(), &pb.RotateCARequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rotation shows", func() bool {
		_, text := s.get("/metrics")
		return strings.Contains(text, "\ntrustcast_generation 3\n") && strings.Contains(text, "\n"+`trustcast_rotation_phase{phase="idle"} 1`)
	})
	return text
}

// TestMetricsKeepConventions: Prometheus' own linter has nothing to say, each is in the
// reference, and that has no other. `go test ./test -run TestMetrics -update` writes it.
func TestMetricsKeepConventions(t *testing.T) {
	const page = "../docs/reference/metrics.md"
	text := scrape(t)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if control, err := promlint.New(strings.NewReader("# TYPE trustcast_minutes counter\ntrustcast_minutes 1\n")).Lint(); err != nil || len(control) < 2 {
		t.Errorf("the linter finds nothing wrong with a counter of minutes without help: %v, %v", control, err)
	}
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("<!-- metrics: made by a test -->\n"), []byte("<!-- end -->")
	before, rest, found := bytes.Cut(raw, begin)
	table, after, closed := bytes.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no table between its marks", page)
	}
	want := metricsTable(text)
	if *update {
		if err := os.WriteFile(page, slices.Concat(before, begin, []byte(want), end, after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(table), want); diff != "" {
		t.Errorf("%s is not what the server has (-page +server): go test ./test -run TestMetrics -update\n%s", page, diff)
	}
}

var (
	helpLine   = regexp.MustCompile(`(?m)^# HELP (trustcast_\w+) (.*)\n# TYPE \w+ (\w+)$`)
	labelNames = regexp.MustCompile(`(\w+)="`)
)

// metricsTable is the reference of what a server shows.
func metricsTable(text string) string {
	rows := []string{}
	for _, m := range helpLine.FindAllStringSubmatch(text, -1) {
		labels := "–"
		if sample := regexp.MustCompile(`(?m)^` + m[1] + `\{(.*)\}`).FindStringSubmatch(text); sample != nil {
			var names []string
			for _, l := range labelNames.FindAllStringSubmatch(sample[1], -1) {
				names = append(names, "`"+l[1]+"`")
			}
			labels = strings.Join(names, ", ")
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |\n", m[1], m[3], labels, strings.ReplaceAll(m[2], `\\`, `\`)))
	}
	slices.Sort(rows)
	return "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n" + strings.Join(rows, "")
}
