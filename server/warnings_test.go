package server

import (
	"strings"
	"testing"
	"time"
)

func TestUrgency(t *testing.T) {
	t.Parallel()
	const year = 365 * day
	made := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name string
		life time.Duration
		left time.Duration
		want int
	}{
		{"ten years, 31 days left", 10 * year, 31 * day, 0},
		{"ten years, 30 days left", 10 * year, 30 * day, 1},
		{"a year, a month left", year, 31 * day, 0},
		{"a year, 30 days left", year, 30 * day, 1},
		{"a year, 8 days left", year, 8 * day, 1},
		{"a year, a week left", year, 7 * day, 2},
		{"a year, a day left", year, day, 3},
		{"a year, ended", year, 0, 4},
		{"90 days, just made", 90 * day, 90 * day, 0},
		{"90 days, at its renewal", 90 * day, 26 * day, 0},
		{"90 days, 22 days left", 90 * day, 22 * day, 1},
		{"30 days, at its renewal", 30 * day, 9 * day, 0},
		{"30 days, a week left", 30 * day, 7 * day, 1},
		{"30 days, a day left", 30 * day, day, 3},
		{"an hour, just made", time.Hour, time.Hour, 0},
		{"an hour, at its renewal", time.Hour, 17 * time.Minute, 0},
		{"an hour, a quarter left", time.Hour, 15 * time.Minute, 1},
		{"an hour, seven minutes left", time.Hour, 7 * time.Minute, 2},
		{"an hour, three minutes left", time.Hour, 3 * time.Minute, 3},
		{"an hour, ended long ago", time.Hour, -year, 4},
	} {
		if got := urgency(made, made.Add(test.life), made.Add(test.life-test.left)); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

func TestCertificateLine(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := certificate{"leaf", now.Add(-28 * day), now.Add(2*day + time.Hour), "the registry's certificate", "see the log"}
	if got, want := c.line(now), "the registry's certificate ends in 2 days: see the log"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := c.line(now.Add(-10 * day)); got != "" {
		t.Errorf("ten days earlier: %q", got)
	}
	if got, want := c.line(now.Add(3*day)), "the registry's certificate has ended: see the log"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	c.key = "registry_ca"
	if got := c.line(now.Add(3 * day)); !strings.Contains(got, "no pull works") {
		t.Errorf("%q", got)
	}
	c.text = ""
	if got := c.line(now.Add(3 * day)); got != "" {
		t.Errorf("one that another line is about: %q", got)
	}
}

// TestEndsAreMetrics: each certificate's end is a gauge of its own.
func TestEndsAreMetrics(t *testing.T) {
	t.Parallel()
	began := time.Now()
	dir := t.TempDir()
	if _, err := Init(t.Context(), InitConfig{DataDir: dir, Domain: "registry.test", CALife: 100 * day, LeafLife: 10 * day, ControlLife: 1000 * day}); err != nil {
		t.Fatal(err)
	}
	n, err := open(t.Context(), Config{DataDir: dir, LeafLife: 10 * day}.withDefaults(), layout{dir})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Duration{"registry_ca": 100 * day, "leaf": 10 * day, "control_ca": 1000 * day, "server_identity": 30 * day}
	for _, f := range families {
		if f.GetName() != "trustcast_certificate_not_after_timestamp_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			key := m.GetLabel()[0].GetValue()
			ends := time.Unix(int64(m.GetGauge().GetValue()), 0)
			if off := ends.Sub(began.Add(want[key])); want[key] == 0 || off.Abs() > time.Minute {
				t.Errorf("%s ends on %s, %s off", key, ends, off)
			}
			delete(want, key)
		}
	}
	if len(want) > 0 {
		t.Errorf("no gauge of %v", want)
	}
}
