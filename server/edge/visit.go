package edge

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

const (
	defaultHoldLimit = 30 * time.Second
	// maxHeld is how many requests wait at once: each costs about 50 kB with its
	// connection, and a fleet of clients that try again comes to some hundreds.
	maxHeld = 1024
	// maxTries is how often one request is sent: one that brings every endpoint
	// down must come to an end. On kept connections each is up to maxConnections
	// times.
	maxTries = 4
)

// refusal is an answer of the edge's own.
type refusal struct {
	status  int
	code    string // for clients
	reason  string // for the metrics
	message string
	// retryAfter is when trying again makes sense; 0: nobody can say.
	retryAfter time.Duration
}

func unavailable(reason, message string, retryAfter time.Duration) refusal {
	return refusal{http.StatusServiceUnavailable, "UNAVAILABLE", reason, message, retryAfter}
}

var (
	paused     = unavailable("paused", "the registry is paused: `trustcast registry unpause` lets it go on", 10*time.Second)
	collecting = unavailable("collecting", "the registry collects garbage and takes no pushes meanwhile: try again", 10*time.Second)
	stopped    = unavailable("stopped", "the registry is stopped: `trustcast registry start` starts it", 0)
	nobody     = unavailable("unanswered", "nothing answers for the registry: `trustcast registry status` says why; try again", 5*time.Second)
	crowded    = unavailable("crowded", "too many requests wait for the registry: try again", 10*time.Second)
	stopping   = unavailable("stopping", "the server stops: try again", 5*time.Second)
	left       = unavailable("left", "the client went away", 0)
)

func broken(ep *endpoint) *refusal {
	return &refusal{http.StatusBadGateway, "UNAVAILABLE", "broken", fmt.Sprintf("the registry's %s broke off: try again", ep.ID), time.Second}
}

// reasons are all that refusals have, for the metrics.
var reasons = []string{"paused", "collecting", "stopped", "unanswered", "crowded", "stopping", "left", "broken", "unfit", "space"}

// visit is the way of one request through the gate to an endpoint that answers.
type visit struct {
	*Edge
	out   *response
	r     *http.Request
	write bool

	forwarded bool        // r is as endpoints get it, which is the case when it passed the gate once
	inside    bool        // passed the gate, and counted there
	held      *time.Timer // from when it waited first: ends it; nil before
	tries     int
}

// answer has an endpoint answer, or refuses. An endpoint that cannot be reached,
// or ends before it answered, is replaced by another where nothing is lost or done
// twice by that.
func (e *Edge) answer(out *response, r *http.Request) {
	v := &visit{Edge: e, out: out, r: r, write: isWrite(r)}
	defer v.end()
	for {
		t, why := v.turn()
		if why != nil {
			e.refuse(out, why)
			return
		}
		if t.endpoint == nil { // it is answered
			return
		}
		again, why := v.ask(t)
		if why != nil {
			e.refuse(out, why)
		}
		if !again {
			return
		}
		e.metrics.retries.Inc()
	}
}

// turn waits until the gate lets the request pass and an endpoint is there for
// it, or answers it without one. Not a byte of its body is read meanwhile.
func (v *visit) turn() (turn, *refusal) {
	for {
		why, opened := v.gate.pass(v.write)
		var chosen turn
		var found <-chan struct{}
		if why == nil {
			v.inside = true
			if adds(v.r) {
				if why := v.space.refuses(); why != nil {
					return turn{}, why
				}
			}
			if v.direct() {
				return turn{}, nil
			}
			if chosen, found = v.balance.choose(); found == nil {
				return chosen, nil
			}
			why = &nobody
			v.leave() // or those who wait for the end of all writes would wait for it, too
		}
		if why == &stopped {
			return turn{}, why
		}
		if why := v.wait(why, opened, found); why != nil {
			return turn{}, why
		}
	}
}

// direct answers a read without an endpoint, or has the request made one for them.
func (v *visit) direct() bool {
	if v.forwarded {
		return false
	}
	if !v.write && v.cfg.Direct != nil && v.cfg.Direct(v.out, v.r) {
		v.metrics.direct.Inc()
		return true
	}
	v.r, v.forwarded = forward(v.r), true
	return false
}

// wait returns nil when it is worth another look. A client that leaves in the
// middle of its body is not seen before the limit: the body is not read.
func (v *visit) wait(why *refusal, opened, found <-chan struct{}) *refusal {
	if v.held == nil {
		v.held = time.NewTimer(v.cfg.HoldLimit)
	}
	if v.metrics.held.Add(1) > maxHeld {
		v.metrics.held.Add(-1)
		return &crowded
	}
	defer v.metrics.held.Add(-1)
	select {
	case <-opened:
		return nil
	case <-found:
		return nil
	case <-v.held.C:
		return why
	case <-v.r.Context().Done():
		return &left
	case <-v.stopping:
		return &stopping
	}
}

// leave goes back before the gate.
func (v *visit) leave() {
	if v.inside {
		v.gate.leave(v.write)
		v.inside = false
	}
}

func (v *visit) end() {
	v.leave()
	if v.held != nil {
		v.held.Stop()
	}
}

// ask lets an endpoint answer. What it did not answer is asked again, or refused.
func (v *visit) ask(t turn) (again bool, why *refusal) {
	defer v.balance.done(t)
	if t.proxy == nil {
		t.Handler.ServeHTTP(v.out, v.r)
		return false, nil
	}
	v.tries++
	a := &attempt{at: t.Endpoint}
	defer func() { // also when the answer broke off, and a panic goes through here
		if a.cut != nil && v.r.Context().Err() == nil {
			v.fail(t, a.cut)
		}
	}()
	t.proxy.serve(t.hung, v.out, v.r, a)
	touched, bodyErr := a.body.end()
	switch {
	case a.err == nil:
		return false, nil
	case v.r.Context().Err() != nil, bodyErr != nil: // not the endpoint's fault
		return false, &left
	}
	if unfit, ok := errors.AsType[*unfit](a.err); ok {
		return false, v.withhold(t, unfit)
	}
	v.fail(t, a.err)
	if v.mayGoElsewhere(a, touched) {
		v.leave()
		return true, nil
	}
	return false, broken(t.endpoint)
}

// mayGoElsewhere says whether the request can be sent again. One that no endpoint
// got can, whatever it is. One that an endpoint may have got can when it reads
// only; the second answer to a DELETE would be that there is nothing.
func (v *visit) mayGoElsewhere(a *attempt, touched bool) bool {
	switch {
	case v.out.status != 0 || touched:
		return false
	case a.unreached():
		return true
	case a.body != nil && adds(v.r): // which nothing can do without its body
		return v.tries < maxTries
	}
	return !v.write && v.tries < maxTries
}

// Held is how many requests wait now, behind the gate or for an endpoint.
func (e *Edge) Held() int { return int(e.metrics.held.Load()) }

func (e *Edge) refuse(out http.ResponseWriter, why *refusal) {
	e.metrics.refused.WithLabelValues(why.reason).Inc()
	why.send(out)
}

func (why *refusal) send(w http.ResponseWriter) {
	if why.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(why.retryAfter.Seconds()))))
	}
	refuse(w, why.status, why.code, why.message)
}
