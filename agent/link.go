package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"
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
	agent *agent
	log   *slog.Logger

	offers  slot[*pb.Wanted]
	reports slot[*pb.Report]
	asked   chan struct{} // one slot: a new stream wants its first report
	hints   chan struct{} // one slot: gossip changed
	limit   *rate.Limiter // of visits caused by hints

	mu        sync.Mutex
	current   pace
	revision  uint64 // of the newest offer
	connected bool
	lastSync  time.Time
	why       string // why there is no stream
	cutShort  context.CancelFunc
}

func newLink(a *agent) *link {
	return &link{
		agent: a, log: a.log,
		offers: newSlot[*pb.Wanted](), reports: newSlot[*pb.Report](),
		asked: make(chan struct{}, 1), hints: make(chan struct{}, 1),
		// Whoever holds the gossip key can forge hints: they cost the server
		// one visit a second at most.
		limit:   rate.NewLimiter(1, 3),
		current: pace{tick: defaultTick}, revision: a.wanted.revision,
	}
}

// run keeps the link up until ctx ends.
func (l *link) run(ctx context.Context) error {
	layers := l.agent.cfg.Layers
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval = firstRetry
	for {
		err := l.visit(ctx, layers.NoStream)
		select {
		case <-ctx.Done():
			return nil // whatever the visit ended with, we ended it
		default:
		}
		l.disconnected(err)
		pause := l.pace().tick
		switch {
		case status.Code(err) == codes.PermissionDenied:
			pause = retryRemoved
		case err != nil:
			retry.MaxInterval = max(l.pace().tick, firstRetry)
			pause = retry.NextBackOff()
		case err == nil:
			retry.Reset()
		}
		if !l.rest(ctx, pause, err != nil || !layers.NoPoll || !layers.NoStream) {
			return nil
		}
	}
}

// rest waits for the next visit: the pause if it is timed, or a hint that
// something newer exists. Both are spread over the window that the server asked
// for.
func (l *link) rest(ctx context.Context, pause time.Duration, timed bool) bool {
	var due <-chan time.Time
	if timed {
		due = time.After(pause + l.jitter())
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-due:
			return true
		case <-l.hints:
			if l.behind() && l.limit.Allow() {
				due = time.After(l.jitter())
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
	m := l.agent.gossip
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

// hint is called by gossip; it only wakes.
func (l *link) hint() {
	select {
	case l.hints <- struct{}{}:
	default:
	}
}

// visit opens a stream and holds it until it breaks; a short one ends when the
// newest offer was answered.
func (l *link) visit(ctx context.Context, short bool) error {
	if err := l.renewIfDue(ctx); err != nil {
		return err
	}
	conn, err := l.agent.dialServer(l.agent.identity())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the stream's error is the one that counts
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewAgentServiceClient(conn).Sync(ctx)
	if err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() { received <- l.receive(stream) }()
	err = l.send(ctx, stream, received, short)
	cancel()
	if err == nil {
		return nil
	}
	if errors.Is(err, errStreamOver) {
		err = <-received
	}
	if status.Code(err) == codes.Unauthenticated {
		// Perhaps expired while we were away; the server says.
		return errors.Join(err, l.renew(context.WithoutCancel(ctx)))
	}
	return err
}

// errStreamOver: the receiving side has the reason.
var errStreamOver = errors.New("the stream is over")

type syncStream interface {
	Send(*pb.SyncRequest) error
	Recv() (*pb.SyncResponse, error)
	CloseSend() error
}

// receive hands the newest offer to the loop until the stream ends.
func (l *link) receive(stream syncStream) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		l.offered(m.GetWanted())
	}
}

func (l *link) offered(w *pb.Wanted) {
	if w == nil {
		return
	}
	l.mu.Lock()
	l.revision = w.GetRevision()
	l.current = pace{
		tick:   min(max(w.GetTick().AsDuration(), minTick), maxTick),
		window: min(max(w.GetWindow().AsDuration(), 0), maxWindow),
	}
	if !l.connected {
		l.log.Info("connected", "server", l.agent.enrolment.Server)
	}
	l.connected, l.lastSync, l.why = true, l.agent.cfg.Now(), ""
	if l.cutShort != nil {
		l.cutShort()
	}
	l.mu.Unlock()
	l.offers.put(w)
}

// send asks the loop for a report and sends the newest whenever there is one.
func (l *link) send(ctx context.Context, stream syncStream, received <-chan error, short bool) error {
	l.reports.take() // one from before this stream
	select {
	case l.asked <- struct{}{}:
	default:
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-received:
			return err
		case <-l.reports.nudge:
			r := l.reports.take()
			if r == nil {
				continue
			}
			if err := stream.Send(&pb.SyncRequest{Report: r}); err != nil {
				return errStreamOver
			}
			if short && l.answers(r) {
				return farewell(stream, received)
			}
		}
	}
}

// farewell ends a short visit: the server closes after it has read everything,
// while cancelling would drop what is still on its way.
func farewell(stream syncStream, received <-chan error) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	select {
	case err := <-received:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-time.After(connectLimit):
		return errors.New("the server did not close the visit")
	}
}

// answers: the report is about the newest offer.
func (l *link) answers(r *pb.Report) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected && r.GetRevision() == l.revision
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
	return ctx
}

func (l *link) disconnected(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	why := "the server closed the stream"
	if err != nil {
		why = status.Convert(err).Message()
	}
	if !l.agent.cfg.Layers.NoStream && (l.connected || l.why != why) {
		l.log.Warn("no stream to the server; trying again", "server", l.agent.enrolment.Server, "err", why)
	}
	l.connected, l.why = false, why
}

func (l *link) pace() pace {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

func (l *link) state() (connected bool, lastSync time.Time, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected, l.lastSync, l.why
}

// slot holds the newest value of something; putting replaces.
type slot[T any] struct {
	mu    *sync.Mutex
	value *T
	nudge chan struct{}
}

func newSlot[T any]() slot[T] {
	return slot[T]{mu: &sync.Mutex{}, value: new(T), nudge: make(chan struct{}, 1)}
}

func (s slot[T]) put(v T) {
	s.mu.Lock()
	*s.value = v
	s.mu.Unlock()
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// take returns the newest value and empties the slot.
func (s slot[T]) take() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := *s.value
	*s.value = *new(T)
	return v
}
