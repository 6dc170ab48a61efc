package server

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/trustcast/trustcast/server/authority"
)

// fleetMetrics reads what the server knows of itself and its fleet, once for each time
// that it is asked. No label has a value that clients or hosts choose.
type fleetMetrics struct{ node *node }

// hostStates are the values of a host's state, see stateOf.
var hostStates = []string{"trusted", "pending", "refused", "failed", "gone"}

// phases of a rotation.
var phases = []authority.Phase{authority.Idle, authority.Staged, authority.Switched, authority.Retiring}

var (
	descGeneration = prometheus.NewDesc("trustcast_generation", "Generation of the bundle that hosts should have.", nil, nil)
	descPhase      = prometheus.NewDesc("trustcast_rotation_phase", "1 for the phase that the rotation is in; idle: none runs.", []string{"phase"}, nil)
	descStarted    = prometheus.NewDesc("trustcast_rotation_started_timestamp_seconds", "When the rotation under way began, in Unix seconds; 0: none runs.", nil, nil)
	descDeadline   = prometheus.NewDesc("trustcast_rotation_deadline_timestamp_seconds", "Until when the rotation's step waits for gone hosts, in Unix seconds; 0: it waits for none.", nil, nil)
	descWaiting    = prometheus.NewDesc("trustcast_rotation_waiting_hosts", "Hosts that the rotation's step waits for.", nil, nil)
	descFrozen     = prometheus.NewDesc("trustcast_rotation_frozen", "1 while nothing happens any more until an operator acts: status says why.", nil, nil)
	descHosts      = prometheus.NewDesc("trustcast_hosts", "Enrolled hosts, by state.", []string{"state"}, nil)
	descConnected  = prometheus.NewDesc("trustcast_hosts_connected", "Hosts with an open stream.", nil, nil)
	descUsers      = prometheus.NewDesc("trustcast_users", "Users who may sign in to the registry.", nil, nil)
	descEngine     = prometheus.NewDesc("trustcast_engine_up", "1 while the registry runs and a replica answers.", nil, nil)
	descReplicas   = prometheus.NewDesc("trustcast_engine_replicas", "Replicas that answer for the registry now.", nil, nil)
	descWanted     = prometheus.NewDesc("trustcast_engine_replicas_wanted", "Replicas that there shall be.", nil, nil)
	descWarnings   = prometheus.NewDesc("trustcast_warnings", "Things that an operator should do something about: status says which.", nil, nil)
)

// Describe names them.
func (fleetMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descGeneration, descPhase, descStarted, descDeadline, descWaiting, descFrozen, descHosts, descConnected,
		descUsers, descEngine, descReplicas, descWanted, descWarnings,
	} {
		to <- d
	}
}

// Collect reads them. Where the record cannot be read, what comes from it is left out.
func (m fleetMetrics) Collect(to chan<- prometheus.Metric) {
	n := m.node
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	m.hosts(gauge)
	gauge(descUsers, float64(len(n.users.Names())))
	view, answering := n.registry.View(), 0
	for _, e := range n.edge.Load() {
		if e.Problem == "" && !e.Draining {
			answering++
		}
	}
	gauge(descEngine, truth(n.engineAnswers() == nil))
	gauge(descReplicas, float64(answering))
	gauge(descWanted, float64(view.Wanted))

	state, err := n.authority.State()
	if err != nil {
		return // status says it
	}
	gauge(descGeneration, float64(state.Bundle.Generation))
	for _, p := range phases {
		gauge(descPhase, truth(state.Rotation.Phase == p), string(p))
	}
	started, deadline := 0.0, 0.0
	if r := state.Rotation; r.Phase != authority.Idle {
		started = float64(r.Started.Unix())
		if !r.Deadline.IsZero() {
			deadline = float64(r.Deadline.Unix())
		}
	}
	gauge(descStarted, started)
	gauge(descDeadline, deadline)
	gauge(descWaiting, float64(len(state.Waiting)))
	gauge(descFrozen, truth(state.Frozen != ""))
	gauge(descWarnings, float64(len(n.warnings(state, n.identity.Hosts()))))
}

// hosts counts them by state.
func (m fleetMetrics) hosts(gauge func(*prometheus.Desc, float64, ...string)) {
	n, byState, connected := m.node, map[string]int{}, 0
	verdicts := n.authority.Verdicts()
	for _, h := range n.identity.Hosts() {
		s := n.fleet.State(h.ID)
		byState[stateOf(s, verdicts[h.ID])]++
		if s.Connected {
			connected++
		}
	}
	for _, state := range hostStates {
		gauge(descHosts, float64(byState[state]), state)
	}
	gauge(descConnected, float64(connected))
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// registerBuild says which program this is.
func (n *node) registerBuild() {
	n.metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "trustcast_build_info", Help: "1, with the program's version and Go's as labels.",
			ConstLabels: prometheus.Labels{"version": n.cfg.Version, "goversion": runtime.Version()},
		}, func() float64 { return 1 }),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector(),
		fleetMetrics{n},
	)
}
