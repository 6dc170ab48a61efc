package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/peer"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
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

// A server that restarts while somebody waits is given this long to come back, asked
// this often. The old one may take all of a stop before the new one begins, and that one
// needs seconds.
const (
	comeBack   = server.StopLimit + time.Minute
	comeBackIn = 200 * time.Millisecond
)

// watch follows the status until done says so, and returns the last one seen. The server
// has answered the caller before: one that is away now is waited for, also at first; one
// that may not be asked is not. seen, if given, gets each status.
func (a *app) watch(ctx context.Context, seen func(*pb.Status), done func(*pb.Status) bool) (*pb.Status, error) {
	var last *pb.Status
	away := absence{remark: goneRemark}
	for {
		s, err := a.watchOnce(ctx, seen, done)
		if s != nil {
			last, away.since = s, time.Time{}
		}
		if err == nil || ctx.Err() != nil || !wentAway(err) {
			return last, ended(ctx, said(err))
		}
		if err := a.sitOut(ctx, &away, notBack(err)); err != nil {
			return last, err
		}
	}
}

const goneRemark = "The server went away; waiting for it to come back."

// absence is that of a server which is waited for.
type absence struct {
	remark string    // said when it begins
	since  time.Time // zero while the server answers
}

// sitOut returns nil when the server is to be asked again, and long when it has been away
// for too long.
func (a *app) sitOut(ctx context.Context, away *absence, long error) error {
	switch {
	case away.since.IsZero():
		away.since = time.Now()
		a.say("%s", away.remark)
	case time.Since(away.since) > comeBack:
		return long
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(comeBackIn):
		return nil
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

// wentAway reports whether err is that of a server that ended, or that is not there:
// one that is killed accepts connections for a moment more. Waiting mends no permission,
// and makes nobody else's socket ours.
func wentAway(err error) bool {
	if other, _ := errors.AsType[*peer.OtherError](err); other != nil || errors.Is(err, fs.ErrPermission) {
		return false
	}
	return errors.Is(err, io.EOF) || cli.Code(err) == cli.Unreachable
}

// notBack is the end of the wait, and why the server could not be asked last.
func notBack(err error) error {
	return cli.Errorf(cli.Unreachable, "the server went away and did not come back within %s; nothing is lost, it carries on when it is started again: %w", comeBack, said(err))
}

// ended prefers the reason of ctx to the stream's words for it.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
