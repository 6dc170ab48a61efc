package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// hostMetrics are what agents reported, asked for at each scrape: a host that was
// removed is gone from them, and nothing is kept. Their number is bounded by the
// fleet's size; a host's name is one of identity's, never what a client made up.
type hostMetrics struct{ node *node }

var (
	hostLabels = []string{"host"}

	hostState      = prometheus.NewDesc("trustcast_host_state", "1 for the state that the host is in: trusted, pending, refused, failed or gone.", []string{"host", "state"}, nil)
	hostGeneration = prometheus.NewDesc("trustcast_host_generation", "Generation of the bundle that the host has on disk, as of its last report.", hostLabels, nil)
	hostLastSeen   = prometheus.NewDesc("trustcast_host_last_seen_timestamp_seconds", "When the host gave its last sign, in Unix seconds.", hostLabels, nil)
	hostIdentity   = prometheus.NewDesc("trustcast_host_identity_not_after_timestamp_seconds", "When the host's identity ends, in Unix seconds.", hostLabels, nil)
	hostRepairs    = prometheus.NewDesc("trustcast_host_repairs_total", "How often the agent mended a file that something else had changed, since the agent's start.", hostLabels, nil)
	hostContested  = prometheus.NewDesc("trustcast_host_contested", "1 while something else on the host changes the agent's files again and again.", hostLabels, nil)
)

// Describe names them.
func (hostMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{hostState, hostGeneration, hostLastSeen, hostIdentity, hostRepairs, hostContested} {
		to <- d
	}
}

// Collect reads them. What a host has not said since this server started is left
// out: 0 would be a statement.
func (m hostMetrics) Collect(to chan<- prometheus.Metric) {
	verdicts := m.node.authority.Verdicts()
	for _, h := range m.node.identity.Hosts() {
		s := m.node.fleet.State(h.ID)
		host := hostStatus(h, s, verdicts[h.ID])
		gauge := func(d *prometheus.Desc, value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{h.Name}, labels...)...)
		}
		gauge(hostState, 1, host.GetState())
		gauge(hostIdentity, seconds(host.GetIdentityNotAfter()))
		if host.GetLastSeen() != nil {
			gauge(hostLastSeen, seconds(host.GetLastSeen()))
		}
		if s.Evidence == nil {
			continue
		}
		gauge(hostGeneration, float64(host.GetGeneration()))
		contested := 0.0
		if host.GetContested() != "" {
			contested = 1
		}
		gauge(hostContested, contested)
		to <- prometheus.MustNewConstMetric(hostRepairs, prometheus.CounterValue, float64(host.GetRepairs()), h.Name)
	}
}

func seconds(t *timestamppb.Timestamp) float64 {
	return float64(t.AsTime().UnixNano()) / float64(time.Second)
}
