package edge

import (
	"errors"
	"log/slog"
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
	inFlight atomic.Int64
}

func newMetrics(reg prometheus.Registerer, log *slog.Logger) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trustcast_edge_requests_total",
			Help: "Requests answered, by method, route and status code.",
		}, []string{"method", "route", "code"}),
		signIns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trustcast_edge_sign_ins_total",
			Help: "Sign-ins: remembered (no bcrypt), accepted, refused, anonymous.",
		}, []string{"result"}),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trustcast_edge_certificate_refusals_total",
			Help: "Handshakes that clients ended because they do not trust the certificate.",
		}),
	}
	if reg == nil {
		return m
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trustcast_edge_requests_in_flight",
		Help: "Requests being answered now.",
	}, func() float64 { return float64(m.inFlight.Load()) })
	err := errors.Join(reg.Register(m.requests), reg.Register(m.signIns), reg.Register(m.refusals), reg.Register(inFlight))
	if err != nil {
		log.Error("some metrics of the edge are not exported", "err", err)
	}
	return m
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
