package server

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/fleet"
)

// TestHostMetrics: what hosts report is in the metrics under their names, what a host
// has not said is left out, and a host that is removed is gone from them.
func TestHostMetrics(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPopulation(t, dir, 2)
		defer p.end()
		if got := p.hostMetrics(t); len(got) != 0 {
			t.Errorf("without a host: %v", got)
		}
		p.join()
		w := p.node.authority.Wanted()
		e := certs.Evidence{Boot: 2, Sequence: 1, Generation: w.Bundle.Generation, Problem: "something else writes ca.crt"}
		if err := p.streams[1].Report(e, fleet.Details{Repairs: 7, Contested: "/etc/docker/certs.d/r:5000/ca.crt"}); err != nil {
			t.Fatal(err)
		}
		now := float64(time.Now().Unix())
		want := map[string]float64{
			"trustcast_host_state host-0 trusted":               1,
			"trustcast_host_state host-1 refused":               1,
			"trustcast_host_generation host-0":                  float64(w.Bundle.Generation),
			"trustcast_host_generation host-1":                  float64(w.Bundle.Generation),
			"trustcast_host_repairs_total host-0":               0,
			"trustcast_host_repairs_total host-1":               7,
			"trustcast_host_contested host-0":                   0,
			"trustcast_host_contested host-1":                   1,
			"trustcast_host_last_seen_timestamp_seconds host-0": now,
			"trustcast_host_last_seen_timestamp_seconds host-1": now,
		}
		got := p.hostMetrics(t)
		for _, host := range []string{"host-0", "host-1"} {
			key := "trustcast_host_identity_not_after_timestamp_seconds " + host
			if got[key] <= now {
				t.Errorf("%s ends at %v, it is %v", host, got[key], now)
			}
			delete(got, key)
		}
		if !maps.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if _, err := (&adminAPI{node: p.node}).RemoveHost(t.Context(), &pb.RemoveHostRequest{Host: "host-1"}); err != nil {
			t.Fatal(err)
		}
		for key := range p.hostMetrics(t) {
			if strings.Contains(key, "host-1") {
				t.Errorf("a removed host is still in %s", key)
			}
		}
	})
}

// hostMetrics gathers those of hosts, as "NAME HOST[ STATE]".
func (p *population) hostMetrics(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := p.node.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out, ours := map[string]float64{}, families[:0]
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "trustcast_host_") {
			continue
		}
		ours = append(ours, f)
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			out[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	problems, err := promlint.NewWithMetricFamilies(ours).Lint()
	if err != nil || len(problems) != 0 {
		t.Errorf("not as Prometheus names metrics: %v, %v", problems, err)
	}
	return out
}
