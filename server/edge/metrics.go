package edge

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Routes of the registry's API as metrics name them.
const (
	routeBase     = "base"
	routeManifest = "manifest"
	routeBlob     = "blob"
	routeUpload   = "upload"
	routeTags     = "tags"
	routeCatalog  = "catalog"
	routeOther    = "other"
)

// metrics of the edge. Labels come from short lists only: what clients make up
// would fill the memory.
type metrics struct {
	requests *prometheus.CounterVec
	signIns  *prometheus.CounterVec
	refusals prometheus.Counter
	refused  *prometheus.CounterVec
	retries  prometheus.Counter
	direct   prometheus.Counter
	inFlight atomic.Int64
	held     atomic.Int64
}

func newMetrics(e *Edge) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trustcast_edge_requests_total",
			Help: "Requests answered, by method, route and status code.",
		}, []string{"method", "route", "code"}),
		signIns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trustcast_edge_sign_ins_total",
			Help: "Sign-ins: remembered (no bcrypt), accepted, refused, limited (too many wrong passwords before), anonymous.",
		}, []string{"result"}),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trustcast_edge_certificate_refusals_total",
			Help: "Handshakes that clients ended because they do not trust the certificate.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trustcast_edge_refused_total",
			Help: "Requests of signed-in users that the edge refused: " + strings.Join(reasons, ", ") + ".",
		}, []string{"reason"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trustcast_edge_retries_total",
			Help: "Requests sent again because an endpoint failed before it answered.",
		}),
	}
	m.direct = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "trustcast_edge_direct_total",
		Help: "Reads answered from the registry's files, without an endpoint.",
	})
	for _, reason := range reasons { // there from the start, so that the first one shows as a step
		m.refused.WithLabelValues(reason)
	}
	for _, result := range []string{remembered, accepted, refused, limited, anonymous} {
		m.signIns.WithLabelValues(result)
	}
	if e.cfg.Registerer != nil {
		m.register(e)
	}
	return m
}

func (m *metrics) register(e *Edge) {
	reg := e.cfg.Registerer
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trustcast_edge_requests_in_flight",
		Help: "Requests being answered now.",
	}, func() float64 { return float64(m.inFlight.Load()) })
	held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trustcast_edge_requests_held",
		Help: "Requests that wait behind the gate or for an endpoint.",
	}, func() float64 { return float64(m.held.Load()) })
	all := []prometheus.Collector{m.requests, m.signIns, m.refusals, m.refused, m.retries, m.direct, inFlight, held, endpointMetrics{e}}
	if e.cfg.Free != nil {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "trustcast_edge_free_bytes",
			Help: "Bytes free for the registry's data; NaN when that cannot be known.",
		}, e.space.gauge))
	}
	var errs []error
	for _, c := range all {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		e.cfg.Log.Error("some metrics of the edge are not exported", "err", err)
	}
}

// endpointMetrics are those of the endpoints that there are now: the names of
// earlier ones do not pile up.
type endpointMetrics struct{ edge *Edge }

var (
	endpointInFlight = prometheus.NewDesc("trustcast_edge_endpoint_requests_in_flight", "Requests being answered now, by endpoint.", []string{"endpoint"}, nil)
	endpointFailing  = prometheus.NewDesc("trustcast_edge_endpoint_failing", "1 while an endpoint fails and gets no requests.", []string{"endpoint"}, nil)
	endpointFailures = prometheus.NewDesc("trustcast_edge_endpoint_failures_total", "How often an endpoint was taken out because it failed.", []string{"endpoint"}, nil)
)

// Describe names them.
func (endpointMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- endpointInFlight
	to <- endpointFailing
	to <- endpointFailures
}

// Collect reads them; an endpoint that is served again while its last requests
// end is counted once.
func (m endpointMetrics) Collect(to chan<- prometheus.Metric) {
	sum := map[string]EndpointLoad{}
	for _, l := range m.edge.Load() {
		s := sum[l.ID]
		s.InFlight += l.InFlight
		s.Failures += l.Failures
		s.Problem += l.Problem
		sum[l.ID] = s
	}
	for id, l := range sum {
		failing := 0.0
		if l.Problem != "" {
			failing = 1
		}
		to <- prometheus.MustNewConstMetric(endpointInFlight, prometheus.GaugeValue, float64(l.InFlight), id)
		to <- prometheus.MustNewConstMetric(endpointFailing, prometheus.GaugeValue, failing, id)
		to <- prometheus.MustNewConstMetric(endpointFailures, prometheus.CounterValue, float64(l.Failures), id)
	}
}

func (m *metrics) answered(r *http.Request, code int) {
	m.requests.WithLabelValues(methodOf(r), routeOf(r.URL.Path), strconv.Itoa(code)).Inc()
}

func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return r.Method
	}
	return routeOther
}

// routeOf reads a path from its end, since a repository's name may hold any of
// the words: /v2/blobs/manifests/tags/list lists tags.
func routeOf(path string) string {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case !ok:
		return routeOther
	case rest == "":
		return routeBase
	case rest == "_catalog":
		return routeCatalog
	}
	rest, last := cutLast(rest)
	rest, kind := cutLast(rest)
	_, before := cutLast(rest)
	switch {
	case rest == "":
		return routeOther // no repository
	case kind == "uploads" && before == "blobs":
		return routeUpload
	case kind == "blobs" && last == "uploads":
		return routeUpload
	case kind == "blobs":
		return routeBlob
	case kind == "manifests":
		return routeManifest
	case kind == "tags" && last == "list":
		return routeTags
	}
	return routeOther
}

func cutLast(path string) (before, last string) {
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return "", path
	}
	return path[:at], path[at+1:]
}
