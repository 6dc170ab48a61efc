package edge

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// balance chooses who answers: the endpoint with the fewest requests in flight
// among those that are well. No I/O happens under its lock.
type balance struct {
	mu      sync.Mutex
	serving []*endpoint // as Serve was told
	leaving []*endpoint // not served any more, with requests in flight
	turn    int         // where the next choice begins, so that equals take turns
	// changed is closed, and replaced, when who waits for an endpoint may find one.
	changed chan struct{}
	// nudged when an endpoint's health is to be asked at once.
	nudged chan struct{}
}

func newBalance() balance {
	return balance{changed: make(chan struct{}), nudged: make(chan struct{}, 1)}
}

// turn is a request's at an endpoint, until done.
type turn struct {
	*endpoint
	life uint64          // the endpoint's when the turn began
	hung context.Context // that life's
}

// Serve says who answers from now on; requests in flight at others go on. One
// that was drained and is among them gets requests again. Repeating is free.
// With no endpoint, requests wait up to Config.HoldLimit for one.
func (e *Edge) Serve(endpoints []Endpoint) {
	b := &e.balance
	var gone []*endpoint
	b.mu.Lock()
	before := b.serving
	b.serving = make([]*endpoint, 0, len(endpoints))
	for _, to := range endpoints {
		at := slices.IndexFunc(before, func(ep *endpoint) bool { return ep.same(to) })
		if at < 0 {
			b.serving = append(b.serving, e.newEndpoint(to))
			continue
		}
		before[at].draining = false
		b.serving = append(b.serving, before[at])
	}
	for _, ep := range before {
		switch {
		case slices.Contains(b.serving, ep):
		case ep.inFlight > 0:
			ep.draining = true
			b.leaving = append(b.leaving, ep)
		default:
			gone = append(gone, ep)
		}
	}
	b.wake()
	b.mu.Unlock()
	for _, ep := range gone {
		ep.rest()
	}
	b.nudge()
}

// Drain lets no new request go to an endpoint and returns when none is in flight
// there, at once when nobody knows it. When ctx ends before, the error says how
// many are left; still no new one goes there. Serve ends it.
func (e *Edge) Drain(ctx context.Context, id string) error {
	for _, ep := range e.balance.drain(id) {
		if err := e.balance.emptied(ctx, ep); err != nil {
			return err
		}
		ep.rest()
	}
	return nil
}

// drain takes every endpoint of that name out: one that is leaving may have had
// another place.
func (b *balance) drain(id string) (found []*endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ep := range slices.Concat(b.serving, b.leaving) {
		if ep.ID == id {
			ep.draining = true
			found = append(found, ep)
		}
	}
	return found
}

func (b *balance) emptied(ctx context.Context, ep *endpoint) error {
	b.mu.Lock()
	if ep.inFlight == 0 {
		b.mu.Unlock()
		return nil
	}
	if ep.empty == nil {
		ep.empty = make(chan struct{})
	}
	empty := ep.empty
	b.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	left := ep.inFlight
	b.mu.Unlock()
	return fmt.Errorf("drain %s: %d requests are still in flight: %w", ep, left, ctx.Err())
}

// Load returns each endpoint that is served or has requests in flight still, in
// the order given to Serve.
func (e *Edge) Load() []EndpointLoad {
	b := &e.balance
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]EndpointLoad, 0, len(b.serving)+len(b.leaving))
	for _, ep := range slices.Concat(b.serving, b.leaving) {
		all = append(all, ep.load())
	}
	return all
}

// choose begins a turn. When there is nobody to ask, there may be after changed
// is closed.
func (b *balance) choose() (t turn, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := -1
	for i := range b.serving {
		j := (b.turn + i) % len(b.serving)
		ep := b.serving[j]
		if ep.draining || ep.problem != nil {
			continue
		}
		if at < 0 || ep.inFlight < b.serving[at].inFlight {
			at = j
		}
	}
	if at < 0 {
		return turn{}, b.changed
	}
	b.turn = (at + 1) % len(b.serving)
	ep := b.serving[at]
	ep.inFlight++
	return turn{ep, ep.life, ep.hung}, nil
}

// done ends a turn.
func (b *balance) done(t turn) {
	if b.left(t.endpoint) {
		t.rest()
	}
}

// left counts a request out, and says whether it was the last of an endpoint
// that is not served any more.
func (b *balance) left(ep *endpoint) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	ep.inFlight--
	if ep.inFlight > 0 {
		return false
	}
	if ep.empty != nil {
		close(ep.empty)
		ep.empty = nil
	}
	at := slices.Index(b.leaving, ep)
	if at < 0 {
		return false
	}
	b.leaving = slices.Delete(b.leaving, at, at+1)
	return true
}

// rest closes what idle endpoints hold.
func (e *Edge) rest() {
	e.balance.mu.Lock()
	all := slices.Concat(e.balance.serving, e.balance.leaving)
	e.balance.mu.Unlock()
	for _, ep := range all {
		ep.rest()
	}
}

// wake has all who wait for an endpoint choose again; mu is held.
func (b *balance) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *balance) nudge() {
	select {
	case b.nudged <- struct{}{}:
	default:
	}
}
