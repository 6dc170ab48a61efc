package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/peer"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// callLimit bounds one question to the server: a local call takes
// milliseconds, bcrypt under load seconds.
const callLimit = time.Minute

// largestAnswer bounds a status: a host takes about 400 bytes in it.
const largestAnswer = 256 << 20

// dial reaches the server of the data directory; close ends the connection.
func (a *app) dial(ctx context.Context) (client pb.AdminServiceClient, closeConn func(), err error) {
	socket := filepath.Join(a.dataDir, "state", "admin.sock")
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		return peer.Dial(ctx, socket, 0, os.Geteuid()) // calls carry passwords and tokens
	}
	probe, err := dialer(ctx, "")
	if err != nil {
		return nil, nil, unreachable(a.dataDir, err)
	}
	_ = probe.Close() // it only had to open
	conn, err := grpc.NewClient("passthrough:///admin",
		grpc.WithContextDialer(dialer), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestAnswer)))
	if err != nil {
		return nil, nil, err
	}
	return pb.NewAdminServiceClient(conn), func() { _ = conn.Close() }, nil // every answer has been read by then
}

// ask makes one bounded call to the server.
func ask[R any](ctx context.Context, a *app, call func(context.Context, pb.AdminServiceClient) (R, error)) (R, error) {
	var none R
	client, closeConn, err := a.dial(ctx)
	if err != nil {
		return none, err
	}
	defer closeConn()
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := call(ctx, client)
	if cli.StatusOf(err).Code() == codes.DeadlineExceeded {
		return r, cli.Errorf(cli.Unreachable, "the server did not answer within %s; see its log", callLimit)
	}
	return r, said(err)
}

// stream makes a call whose answers go to each until the server has said all. It has
// no limit of time: what takes long says each step.
func stream[R any](ctx context.Context, a *app, call func(context.Context, pb.AdminServiceClient) (grpc.ServerStreamingClient[R], error), each func(*R) error) error {
	client, closeConn, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the call on the server too
	answers, err := call(ctx, client)
	if err != nil {
		return said(err)
	}
	for {
		answer, err := answers.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return said(err)
		}
		if err := each(answer); err != nil {
			return err
		}
	}
}

// said puts what gRPC itself has to say into the operator's words; what the
// server says is a complete sentence already.
func said(err error) error {
	switch cli.StatusOf(err).Code() {
	case codes.Unavailable:
		return cli.Errorf(cli.Unreachable, "the server does not answer, or ended before it did; see whether it runs and what its log says, then repeat the command")
	case codes.Unimplemented:
		return cli.Errorf(cli.Failed, "the running server does not know this command: it has another version; compare 'trustcast version' with 'trustcast status', and restart it")
	case codes.Canceled:
		return context.Canceled
	}
	return err
}

// unreachable says why no server answers in dir, and what to do.
func unreachable(dir string, err error) error {
	if other, ok := errors.AsType[*peer.OtherError](err); ok {
		return cli.Errorf(cli.Unreachable, "uid %d answers in %s, who is neither root nor you: nothing was sent (%w). If the server runs as that user, become it, for example with 'sudo -u #%d'", other.UID, dir, err, other.UID)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return cli.Errorf(cli.Unreachable, "no permission to reach the server in %s (%w): its socket is for the user that runs it; become that user, for example with sudo", dir, err)
	case errors.Is(err, fs.ErrNotExist) && !server.Initialized(dir):
		return cli.Errorf(cli.Unreachable, "no server runs in %s (there is no state/admin.sock, and no registry yet); make one with 'trustcast init --domain HOST[:PORT]', or name its directory with --data-dir", dir)
	case errors.Is(err, fs.ErrNotExist):
		return cli.Errorf(cli.Unreachable, "no server runs in %s (there is no state/admin.sock); start it with '%s', or name its directory with --data-dir", dir, startLine(dir))
	case errors.Is(err, context.Canceled):
		return err
	default:
		return cli.Errorf(cli.Unreachable, "no server answers in %s (%w); start it with '%s', or name its directory with --data-dir", dir, err, startLine(dir))
	}
}
