package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trustcast/trustcast/internal/gossip"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const (
	// retryRemoved is how often a removed agent asks whether it may come back.
	retryRemoved = time.Hour
	// firstRetry of a broken stream; it doubles, with jitter, up to the tick.
	firstRetry = 200 * time.Millisecond
)

// pace is how fast the server wants its agents.
type pace struct{ tick, window time.Duration }

// link is the connection to the server: one long stream, or short visits when
// that is off. It moves the newest offer in and the newest report out, and
// decides nothing about either.
type link struct {
	membership *membership
	log        *slog.Logger

	offers  slot[*pb.Wanted]
	reports slot[*answer]
	asked   chan struct{} // one slot: a new stream wants its first report, or there is none any more
	probed  chan struct{} // one slot: the server asks for a sign of life
	hints   chan struct{} // one slot: gossip changed
	heed    heed          // of run alone
	// enrolled: the server has taken this host in just now.
	enrolled bool

	mu        sync.Mutex
	current   pace
	revision  uint64 // of the newest offer
	connected bool
	lastSync  time.Time
	why       string // why there is no stream
	cutShort  context.CancelFunc
}

func newLink(a *membership) *link {
	return &link{
		membership: a, log: a.log,
		offers: newSlot[*pb.Wanted](), reports: newSlot[*answer](),
		asked: make(chan struct{}, 1), probed: make(chan struct{}, 1), hints: make(chan struct{}, 1),
		current: pace{tick: defaultTick}, revision: a.wanted.revision, enrolled: a.fresh,
	}
}

// run keeps the link up until ctx ends.
func (l *link) run(ctx context.Context) error {
	layers := l.membership.cfg.Layers
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval = firstRetry
	hinted := false
	for {
		before := l.newest()
		err := l.visit(ctx, layers.NoStream)
		l.heed.visited(time.Now(), hinted, l.newest() != before, l.pace().tick)
		select {
		case <-ctx.Done():
			return nil // whatever the visit ended with, we ended it
		default:
		}
		if unfinished(err) {
			continue // the next visit begins with it
		}
		if held := l.disconnected(err); held {
			retry.Reset() // it worked: this is a new failure
		}
		pause, removed := l.pace().tick, false
		switch {
		case status.Code(err) == codes.PermissionDenied:
			pause, removed = retryRemoved, true
		case err != nil:
			retry.MaxInterval = max(l.pace().tick, firstRetry)
			pause = retry.NextBackOff()
		}
		hinted = l.rest(ctx, pause, err != nil || !layers.NoPoll || !layers.NoStream, removed)
		select {
		case <-ctx.Done():
			return nil
		default:
		}
	}
}

// rest waits for the next visit: the pause if it is timed, or a hint that
// something newer exists, which it reports. Both are spread over the window that
// the server asked for. Nothing wakes a host that was removed. It ends with ctx.
func (l *link) rest(ctx context.Context, pause time.Duration, timed, removed bool) (hinted bool) {
	var due, heard <-chan time.Time
	if timed {
		due = time.After(pause + l.jitter())
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-due:
			return false
		case <-heard:
			return true
		case <-l.hints:
			// One hint is enough: others must not put the visit off.
			if heard == nil && !removed && l.behind() {
				heard = time.After(l.heed.wait(time.Now()) + l.jitter())
			}
		}
	}
}

// jitter is a random part of the window.
func (l *link) jitter() time.Duration {
	w := l.pace().window
	if w <= 0 {
		return 0
	}
	return rand.N(w) //nolint:gosec // spreads load, keeps no secret
}

// behind: gossip says that the server has something newer.
func (l *link) behind() bool {
	m := l.membership.gossip
	if m == nil {
		return false
	}
	peer, ok := m.Lookup(gossip.ServerName)
	if !ok {
		return false
	}
	hint, ok := gossip.ParseHint(peer.Meta)
	l.mu.Lock()
	defer l.mu.Unlock()
	return ok && hint.Revision > l.revision
}

func (l *link) newest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision
}

// ask wakes the loop.
func (l *link) ask() {
	select {
	case l.asked <- struct{}{}:
	default:
	}
}

// hint is called by gossip; it only wakes.
func (l *link) hint() {
	select {
	case l.hints <- struct{}{}:
	default:
	}
}

// until returns a context for evidence that ends when a newer offer arrives.
func (l *link) until(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cutShort != nil {
		l.cutShort()
	}
	l.cutShort = cancel
	if l.offers.holds() { // it came meanwhile
		cancel()
	}
	return ctx
}

// disconnected notes why there is no stream; held: there was one.
func (l *link) disconnected(err error) (held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held = l.connected
	why := "the server closed the stream"
	if err != nil {
		why = cause(err)
	}
	short := why
	if away(err) && !strange(err) {
		why = fmt.Sprintf("no connection to the server %s (%s); the agent keeps trying: does the server run, is the port open from here?", l.membership.enrolment.Server, why)
	}
	if !l.membership.cfg.Layers.NoStream && (l.connected || l.why != why) {
		l.log.Warn("no stream to the server; trying again", "server", l.membership.enrolment.Server, "err", short)
		l.ask() // the status shall say it
	}
	l.connected, l.why = false, why
	return held
}

func (l *link) pace() pace {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// heard: the server has answered this process, if only once.
func (l *link) heard() bool {
	_, lastSync, _ := l.state()
	return l.enrolled || !lastSync.IsZero()
}

func (l *link) state() (connected bool, lastSync time.Time, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected, l.lastSync, l.why
}
