package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/server/users"
)

const (
	// maxMessage bounds a message from an agent (bytes); a report has 500.
	maxMessage = 64 << 10
	// sendLimit is how long one slow agent may block its own sender.
	sendLimit = 10 * time.Second
	// drainLimit is how long a stop waits for calls in flight.
	drainLimit = 10 * time.Second
)

// agentServer is the gRPC server for hosts: TLS 1.3, each call authenticated by
// the host's record.
func (n *node) agentServer() *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(n.identity.TLS())),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: n.cfg.Keepalive, Timeout: n.cfg.Keepalive / 3}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: n.cfg.Keepalive / 2, PermitWithoutStream: true}),
		grpc.MaxConcurrentStreams(16), // an agent needs two
		// A fixed window: a growing one is measured with a ping for each report.
		grpc.StaticStreamWindowSize(maxMessage),
		grpc.ReadBufferSize(4<<10), // a report has 500 bytes, and each host has a buffer
		grpc.UnaryInterceptor(n.authenticateCall),
		grpc.StreamInterceptor(n.authenticateStream),
	)
	pb.RegisterAgentServiceServer(s, &agentAPI{node: n})
	return s
}

// adminServer is the gRPC server for operators on the Unix socket.
func (n *node) adminServer() *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.UnaryInterceptor(n.logOperator),
		grpc.StreamInterceptor(n.logOperatorStream),
	)
	pb.RegisterAdminServiceServer(s, &adminAPI{node: n})
	return s
}

func serveGRPC(s *grpc.Server, lis net.Listener) error {
	if err := s.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("gRPC on %s: %w", lis.Addr(), err)
	}
	return nil
}

// stopGRPC lets calls in flight end, up to a limit.
func stopGRPC(s *grpc.Server) {
	limit := time.AfterFunc(drainLimit, s.Stop)
	defer limit.Stop()
	s.GracefulStop()
}

// reply maps an error of a part to a gRPC status; its text reaches people
// unchanged. Everything unknown is Internal.
func reply(err error) error {
	if err == nil {
		return nil
	}
	code := codes.Internal
	switch {
	case errors.Is(err, identity.ErrNotFound), errors.Is(err, users.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, identity.ErrTaken), errors.Is(err, fleet.ErrCloned):
		code = codes.AlreadyExists
	case errors.Is(err, identity.ErrRemoved), errors.Is(err, identity.ErrToken):
		code = codes.PermissionDenied
	case errors.Is(err, identity.ErrUnknown), errors.Is(err, identity.ErrExpired):
		code = codes.Unauthenticated
	case errors.Is(err, identity.ErrInvalid), errors.Is(err, users.ErrInvalid), errors.Is(err, registry.ErrInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, authority.ErrNotNow), errors.Is(err, registry.ErrNotNow):
		code = codes.FailedPrecondition
	// Last: what a part has to say may wrap them, and is the better answer.
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	return status.Error(code, err.Error())
}
