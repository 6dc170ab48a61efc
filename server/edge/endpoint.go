package edge

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Endpoint is one place that answers the registry's API.
type Endpoint struct {
	// ID is unique among all endpoints that the edge ever had.
	ID string
	// Handler answers in this process. Nil: Socket does.
	Handler http.Handler
	// Socket is the path of a Unix socket that speaks HTTP/1.1.
	Socket string
	// UID is the user of the process that must answer there; 0: it is not checked.
	UID int
	// Redirects lets what answers at Socket send reads elsewhere: its blobs are in a
	// storage that clients reach.
	Redirects bool
	// Header is what the operator has every answer carry. What is about more than one
	// answer, like Set-Cookie or Access-Control-Allow-Origin, passes only as it is here.
	Header http.Header
}

// EndpointLoad is what an endpoint does at one moment.
type EndpointLoad struct {
	ID string
	// InFlight are the requests that it answers now.
	InFlight int
	// Draining means that it gets no new request, see Edge.Drain; an endpoint that
	// is served no more drains, too, and is gone from the list when it is through.
	Draining bool
	// Problem is why it is failing, in words, and gets no new request until it
	// answers again; empty while it is well.
	Problem string
	// Failures is how often it was found failing.
	Failures uint64
}

// endpoint is an Endpoint under load. balance.mu guards the fields below proxy.
type endpoint struct {
	Endpoint
	proxy *proxy // nil: Handler answers

	inFlight int
	draining bool
	problem  error
	failures uint64
	// life grows when it comes back. What a request met in an earlier life says
	// nothing about this one.
	life uint64
	// hung ends when it does not even answer for its health; each life has its own.
	hung context.Context
	hang context.CancelFunc // ends hung
	// empty is closed when inFlight gets to 0; nil when nobody waits for that.
	empty chan struct{}

	asking bool      // its health is being asked
	due    time.Time // when it is asked next; zero: at once

	told time.Time // when the log said that its answers are withheld
}

func (e *Edge) newEndpoint(to Endpoint) *endpoint {
	ep := &endpoint{Endpoint: to}
	ep.begin()
	if to.Handler == nil {
		ep.proxy = newProxy(to.Socket, to.UID, e.cfg.Log)
	}
	return ep
}

// begin begins a life.
func (ep *endpoint) begin() {
	ep.life++
	ep.problem = nil
	if ep.hung == nil || ep.hung.Err() != nil {
		ep.hung, ep.hang = context.WithCancel(context.Background())
	}
}

// same says whether to is the one that ep stands for.
func (ep *endpoint) same(to Endpoint) bool {
	return ep.ID == to.ID && ep.Socket == to.Socket && (ep.Handler == nil) == (to.Handler == nil)
}

func (ep *endpoint) load() EndpointLoad {
	l := EndpointLoad{ID: ep.ID, InFlight: ep.inFlight, Draining: ep.draining, Failures: ep.failures}
	if ep.problem != nil {
		l.Problem = ep.problem.Error()
	}
	return l
}

// rest gives back what an endpoint holds that gets no more requests.
func (ep *endpoint) rest() {
	if ep.proxy != nil {
		ep.proxy.transport.CloseIdleConnections()
	}
}

// String names the endpoint in errors.
func (ep *endpoint) String() string {
	if ep.proxy == nil {
		return ep.ID
	}
	return fmt.Sprintf("%s (%s)", ep.ID, ep.Socket)
}
