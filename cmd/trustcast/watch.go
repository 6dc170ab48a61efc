package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// The words of the protocol that the commands decide on.
const (
	phaseIdle     = "idle"
	phaseStaged   = "staged"
	phaseSwitched = "switched"
	phaseRetiring = "retiring"

	stateTrusted = "trusted"

	tokenValid = "valid"

	modeCompromised = "compromised"
)

// hostStates and tokenStates are all there are.
var (
	hostStates  = []string{stateTrusted, "pending", "refused", "failed", "gone"}
	tokenStates = []string{tokenValid, "expired", "used up", "revoked"}
)

// A server that restarts while somebody waits is given this long to come back,
// asked this often: a restart takes a second or two.
const (
	comeBack   = 30 * time.Second
	comeBackIn = 200 * time.Millisecond
)

// watch follows the status until done says so, and returns the last one seen.
// A server that restarts meanwhile is waited for. seen, if given, gets each
// status.
func (a *app) watch(ctx context.Context, seen func(*pb.Status), done func(*pb.Status) bool) (*pb.Status, error) {
	var last *pb.Status
	for {
		s, err := a.watchOnce(ctx, seen, done)
		if s != nil {
			last = s
		}
		if err == nil || last == nil || !wentAway(err) {
			return last, ended(ctx, said(err))
		}
		a.say("The server went away; waiting for it to come back.")
		if err := a.awaitServer(ctx); err != nil {
			return last, ended(ctx, err)
		}
	}
}

// watchOnce follows one stream.
func (a *app) watchOnce(ctx context.Context, seen func(*pb.Status), done func(*pb.Status) bool) (last *pb.Status, err error) {
	client, closeConn, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer closeConn()
	// Without the deadline of ctx, which the server would see and keep too: its
	// words for the end could then come before ours.
	streaming, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel() // ends the stream on the server too
	defer context.AfterFunc(ctx, cancel)()
	stream, err := client.WatchStatus(streaming, &pb.WatchStatusRequest{})
	if err != nil {
		return nil, err
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return last, err
		}
		last = r.GetStatus()
		if seen != nil {
			seen(last)
		}
		if done(last) {
			return last, nil
		}
	}
}

func wentAway(err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	return cli.StatusOf(err).Code() == codes.Unavailable
}

// awaitServer returns when the socket answers again.
func (a *app) awaitServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, comeBack, errNotBack)
	defer cancel()
	for {
		_, closeConn, err := a.dial(ctx)
		if err == nil {
			closeConn()
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(comeBackIn):
		}
	}
}

var errNotBack = cli.Errorf(cli.Unreachable, "the server went away and did not come back within %s; nothing is lost, it carries on when it is started again", comeBack)

// ended prefers the reason of ctx to the stream's words for it.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
