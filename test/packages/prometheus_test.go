package packages

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rules is the directory of the alerts.
const rules = "deploy/prometheus/"

// TestAlerts has Prometheus read the alerts and play what they are for.
func TestAlerts(t *testing.T) {
	need(t, "promtool")
	t.Log(run(t, "promtool", "check", "rules", rules+"trustcast.rules.yaml"))
	run(t, "promtool", "test", "rules", rules+"trustcast.rules.test.yaml")
	// A test whose rules never fire would pass, too.
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(top, rules, "trustcast.rules.yaml"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "trustcast.rules.yaml"), []byte(strings.Replace(string(text), "trustcast_engine_up == 0", "trustcast_engine_up == 2", 1)), 0o644))
	played, err := os.ReadFile(filepath.Join(top, rules, "trustcast.rules.test.yaml"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "trustcast.rules.test.yaml"), played, 0o644))
	if out, err := try("promtool", "test", "rules", filepath.Join(dir, "trustcast.rules.test.yaml")); err == nil {
		t.Errorf("an alert that never fires is not noticed:\n%s", out)
	}
}

var metricName = regexp.MustCompile(`trustcast_[a-z_]+`)

// TestAlertsNameMetricsThatExist holds the alerts to the server's metrics.
func TestAlertsNameMetricsThatExist(t *testing.T) {
	made := map[string]bool{}
	must(t, filepath.WalkDir(filepath.Join(top, "server"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`"(trustcast_[a-z_]+)"`).FindAllStringSubmatch(string(text), -1) {
			made[m[1]] = true
		}
		return err
	}))
	used := metricsOfAlerts(t)
	if len(used) < 8 {
		t.Errorf("the alerts use %d metrics only", len(used))
	}
	for name := range used {
		if !made[name] {
			t.Errorf("an alert uses %s, which the server does not have", name)
		}
	}
}

// metricsOfAlerts are the server's own in the alerts' expressions.
func metricsOfAlerts(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, rules, "trustcast.rules.yaml"))
	must(t, err)
	used := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if expr, ok := strings.CutPrefix(strings.TrimSpace(line), "expr: "); ok {
			for _, name := range metricName.FindAllString(expr, -1) {
				used[name] = true
			}
		}
	}
	return used
}

// TestPageHasTheAlerts: what the page on monitoring says to be woken for is what the
// alerts look at, in both directions.
func TestPageHasTheAlerts(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "docs/how-to/monitoring.md"))
	must(t, err)
	_, table, found := strings.Cut(string(text), "## What to be woken for\n")
	table, _, ended := strings.Cut(table, "\n\nStrangers")
	if !found || !ended {
		t.Fatal("the page has no table of what to be woken for")
	}
	page, used := map[string]bool{}, metricsOfAlerts(t)
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 {
			continue
		}
		for _, name := range metricName.FindAllString(cells[2], -1) {
			page[name] = true
			if !used[name] {
				t.Errorf("the page names %s, and no alert looks at it", name)
			}
		}
	}
	for name := range used {
		if !page[name] {
			t.Errorf("an alert looks at %s, which the page does not name", name)
		}
	}
}
