package server

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// logOperator writes one line for each changing call: who did what.
func (n *node) logOperator(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	err = endedBy(ctx, err)
	n.logChange(ctx, req, resp, err)
	return resp, err
}

// logOperatorStream is logOperator for calls with many answers.
func (n *node) logOperatorStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := &askedStream{ServerStream: stream}
	err := endedBy(stream.Context(), handler(srv, s))
	n.logChange(stream.Context(), s.asked, nil, err)
	return err
}

// endedBy says that this server ends where a call is cut short and its caller is still
// there: nobody has interrupted it.
func endedBy(caller context.Context, err error) error {
	if status.Code(err) == codes.Canceled && caller.Err() == nil {
		return errStopping
	}
	return err
}

// askedStream keeps what was asked.
type askedStream struct {
	grpc.ServerStream
	asked any // nil before it is read
}

// RecvMsg reads the request.
func (s *askedStream) RecvMsg(m any) error {
	s.asked = m
	return s.ServerStream.RecvMsg(m)
}

func (n *node) logChange(ctx context.Context, req, resp any, err error) {
	verb, object, changes := change(req, resp)
	if !changes {
		return
	}
	log := n.log.With("verb", verb, "object", object, "uid", callerUID(ctx))
	if err != nil {
		log.Warn("operator's change refused", "err", status.Convert(err).Message())
		return
	}
	log.Info("operator's change")
}

// change names what a request changes, never with a secret.
func change(req, resp any) (verb, object string, changes bool) {
	switch r := req.(type) {
	case *pb.AddUserRequest:
		return "user add", r.GetName(), true
	case *pb.RemoveUserRequest:
		return "user rm", r.GetName(), true
	case *pb.RotateCARequest:
		return "ca rotate", rotationObject(r), true
	case *pb.RollbackCARequest:
		return "ca rollback", "", true
	case *pb.RemoveHostRequest:
		return "host rm", r.GetHost(), true
	case *pb.RollGossipKeyRequest:
		return "fleet roll-gossip-key", "", true
	case *pb.CreateTokenRequest:
		made, _ := resp.(*pb.CreateTokenResponse) // nil when refused
		return "token create", strings.TrimSpace(made.GetId() + " " + r.GetHost()), true
	case *pb.ServeNowRequest:
		opened, _ := resp.(*pb.ServeNowResponse) // nil when refused
		return "ca serve-now", strings.Join(opened.GetWillFail(), ","), true
	case *pb.RemoveTokenRequest:
		return "token rm", r.GetId(), true
	case *pb.ChangeRegistryRequest:
		return "registry " + r.GetVerb(), r.GetImage(), true
	case *pb.CollectGarbageRequest:
		return "registry gc", "", !r.GetDryRun()
	}
	return "", "", false
}
