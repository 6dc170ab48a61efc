package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/trustcast/trustcast/internal/printable"
)

const (
	defaultHealthEvery = 5 * time.Second
	// failingShare is how much more often a failing endpoint is asked: requests
	// may be waiting for it.
	failingShare = 10
	// healthTimeout is how long an endpoint may take to answer GET /v2/, which
	// touches no disk. A busy machine needs seconds; ten are no sign of health.
	healthTimeout = 10 * time.Second
	// maxSaid bounds the words of an endpoint in logs and status (bytes).
	maxSaid = 500
)

// watch asks the health of all endpoints behind sockets until ctx ends.
func (e *Edge) watch(ctx context.Context) {
	var asked sync.WaitGroup
	defer asked.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.balance.nudged:
		case <-timer.C:
		}
		due, next := e.balance.due(time.Now())
		for _, t := range due {
			asked.Go(func() { e.ask(ctx, t) })
		}
		timer.Stop() // with nobody to ask nothing wakes up
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// due returns those to be asked now, and when the next is.
func (b *balance) due(now time.Time) (due []turn, next time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ep := range b.serving {
		switch {
		case ep.proxy == nil || ep.asking:
		case !ep.due.After(now):
			ep.asking = true
			due = append(due, turn{ep, ep.life, ep.hung})
		case next.IsZero() || ep.due.Before(next):
			next = ep.due
		}
	}
	return due, next
}

// ask asks an endpoint once; then it fails or is back.
func (e *Edge) ask(ctx context.Context, t turn) {
	failures := e.balance.failures(t)
	asking, cancel := context.WithTimeout(ctx, e.cfg.healthTimeout)
	defer cancel()
	err := t.proxy.health(asking)
	if ctx.Err() != nil {
		return // the edge stops: no word about the endpoint
	}
	if err != nil {
		e.fail(t, err)
		e.balance.unwell(t, e.cfg.HealthEvery, errors.Is(err, context.DeadlineExceeded))
	} else if e.balance.well(t, failures, e.cfg.HealthEvery) {
		e.cfg.Log.Info("an endpoint of the registry answers again", "endpoint", t.ID)
	}
	e.balance.nudge()
}

// fail takes an endpoint out until its health is good again, which is asked at
// once. What was met in an earlier life, before it came back, does not count.
func (e *Edge) fail(t turn, err error) {
	err = errors.New(printable.Clip(err.Error(), maxSaid)) // it may quote the endpoint
	first, counts := e.balance.failed(t, err)
	if !counts {
		return
	}
	t.rest() // connections to what may be gone
	if first {
		e.cfg.Log.Warn("an endpoint of the registry fails and gets no requests until it answers again", "endpoint", t.ID, "err", err)
		if e.cfg.Failed != nil {
			e.cfg.Failed(t.ID, err)
		}
	}
}

// failed notes a failure, and says whether it is news and whether it counts.
func (b *balance) failed(t turn, err error) (first, counts bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ep := t.endpoint
	if t.life != ep.life {
		return false, false
	}
	first = ep.problem == nil
	ep.problem = err
	if first {
		ep.failures++
		ep.due = time.Time{}
		b.nudge()
	}
	return first, true
}

func (b *balance) failures(t turn) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return t.failures
}

// well takes an endpoint in again, and says whether it was out. One that failed
// since it had failed this often is asked again at once: the good answer may be
// older than that.
func (b *balance) well(t turn, failures uint64, every time.Duration) (back bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ep := t.endpoint
	ep.asking = false
	if ep.failures != failures {
		ep.due = time.Time{}
		return false
	}
	ep.due = time.Now().Add(every)
	if ep.problem == nil {
		return false
	}
	ep.begin()
	b.wake()
	return true
}

// unwell plans when an endpoint is asked again that gave no good answer. From one
// that hangs, whatever only reads and has no answer yet goes elsewhere.
func (b *balance) unwell(t turn, every time.Duration, hangs bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ep := t.endpoint
	ep.asking = false
	ep.due = time.Now().Add(every / failingShare)
	if hangs {
		ep.hang()
	}
}

// health is nil when the endpoint gives any answer to GET /v2/ but a server's
// error: whether it lets us in is not the question.
func (p *proxy) health(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://registry/v2/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "trustcast-edge") // for the engine's log
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask its health: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("ask its health: it answers %d", resp.StatusCode)
	}
	return nil
}
