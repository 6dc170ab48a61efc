package agent

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// visit opens a stream and holds it until it breaks or the identity must be
// renewed; a short one ends when the newest offer was answered.
func (l *link) visit(ctx context.Context, short bool) error {
	if err := l.renewIfDue(ctx); err != nil {
		return err
	}
	conn, err := l.membership.dialServer(l.membership.identity())
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
		if refused := l.renew(context.WithoutCancel(ctx)); refused != nil {
			return refused
		}
	}
	return err
}

// greet makes short visits until the newest offer was answered: another may come while
// one ends, in a rotation or after a host was removed. What is newer after greetMost
// visits is for Run. A server that was there and goes away restarts, perhaps: it is
// visited again for a while.
func (l *link) greet(ctx context.Context) error {
	var missed time.Time // since when the server has been away; zero while it answers
	for visits := 1; ; visits++ {
		err := l.visit(ctx, true)
		switch {
		case unfinished(err) && visits < greetMost:
			missed = time.Time{}
			continue
		case unfinished(err):
			return nil
		case !wentAway(err) || !l.heard():
			return err
		case missed.IsZero():
			missed = time.Now()
		case time.Since(missed) > greetAgain:
			return err
		}
		l.disconnected(err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(firstRetry):
		}
	}
}

const (
	// greetMost is how many visits of a join are for news alone.
	greetMost = 10
	// greetAgain is how long a join waits for a server that went away: a restart takes
	// seconds, and somebody watches. After it Run goes on.
	greetAgain = 5 * time.Second
)

// unfinished: the visit was well, and another shall follow at once.
func unfinished(err error) bool {
	return errors.Is(err, errRenewalDue) || errors.Is(err, errUnanswered)
}

var (
	// errStreamOver: the receiving side has the reason.
	errStreamOver = errors.New("the stream is over")
	// errRenewalDue: the stream is fine, but its identity shall be replaced.
	errRenewalDue = errors.New("the identity must be renewed")
	// errUnanswered: a newer state came while a short visit ended.
	errUnanswered = errors.New("a newer state is to be answered")
)

// answer is a report, and the revision of the newest offer that it takes into
// account, accepted or not.
type answer struct {
	report   *pb.Report
	revision uint64
}

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
	news := w.GetRevision() != l.revision
	l.revision = w.GetRevision()
	l.current = pace{
		tick:   min(max(w.GetTick().AsDuration(), minTick), maxTick),
		window: min(max(w.GetWindow().AsDuration(), 0), maxWindow),
	}
	if !l.connected {
		l.log.Info("connected", "server", l.membership.enrolment.Server)
	}
	l.connected, l.lastSync, l.why = true, l.membership.cfg.Now(), ""
	if news && l.cutShort != nil {
		l.cutShort()
	}
	l.mu.Unlock()
	l.membership.answered()
	l.offers.put(w)
	if !news {
		select {
		case l.probed <- struct{}{}:
		default:
		}
	}
}

// send asks the loop for a report and sends the newest whenever there is one. A
// state that it knows already is the server asking for a sign of life, since
// another stream claims to be this host: the last report is one, at once, while
// the loop may be busy with handshakes.
func (l *link) send(ctx context.Context, stream syncStream, received <-chan error, short bool) error {
	l.reports.take() // one from before this stream
	l.ask()
	renewal := time.NewTimer(l.untilRenewal())
	defer renewal.Stop()
	var last *pb.Report
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-received:
			return err
		case <-renewal.C:
			return errRenewalDue
		case <-l.probed:
			if last == nil {
				continue // the first is under way
			}
			if err := stream.Send(&pb.SyncRequest{Report: last}); err != nil {
				return errStreamOver
			}
		case <-l.reports.nudge:
			a := l.reports.take()
			if a == nil {
				continue
			}
			last = a.report
			if err := stream.Send(&pb.SyncRequest{Report: last}); err != nil {
				return errStreamOver
			}
			if short && l.answers(a) {
				if err := farewell(stream, received); err != nil || l.answers(a) {
					return err
				}
				return errUnanswered
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
func (l *link) answers(a *answer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected && a.revision == l.revision
}
