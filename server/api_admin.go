package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/identity"
)

// adminAPI is what operators call.
type adminAPI struct {
	pb.UnimplementedAdminServiceServer
	node *node
}

// GetStatus returns all that the server knows.
func (a *adminAPI) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	s, err := a.node.status()
	return &pb.GetStatusResponse{Status: s}, reply(err)
}

// A watched status is sent when something was reported or changed, at most
// every statusLeast, and every statusMost for ages and deadlines. It takes as long
// as the fleet is large and every host reports: statusRest times as long is rested
// between two, so that an operator who watches costs a share of a core, whatever the
// fleet's size.
const (
	statusLeast = 10 * time.Millisecond
	statusMost  = 500 * time.Millisecond
	statusRest  = 4
)

// WatchStatus sends the status until the operator has seen enough.
func (a *adminAPI) WatchStatus(_ *pb.WatchStatusRequest, stream grpc.ServerStreamingServer[pb.WatchStatusResponse]) error {
	changed, stop := a.node.store.Watch("")
	defer stop()
	for {
		reported, began := a.node.reported.next(), time.Now()
		s, err := a.node.status()
		if err != nil {
			return reply(err)
		}
		if err := stream.Send(&pb.WatchStatusResponse{Status: s}); err != nil {
			return err
		}
		rest := max(statusLeast, statusRest*time.Since(began))
		select {
		case <-stream.Context().Done():
			return nil
		case <-a.node.stopping:
			return nil
		case <-time.After(rest):
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-a.node.stopping:
			return nil
		case <-changed:
		case <-reported:
		case <-time.After(statusMost):
		}
	}
}

// pulse wakes everybody who waits for the next beat.
type pulse struct {
	mu sync.Mutex
	c  chan struct{} // closed by the next beat; nil when nobody waits
}

func (p *pulse) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c == nil {
		p.c = make(chan struct{})
	}
	return p.c
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c != nil {
		close(p.c)
		p.c = nil
	}
}

// AddUser adds a registry user or changes the password.
func (a *adminAPI) AddUser(_ context.Context, req *pb.AddUserRequest) (*pb.AddUserResponse, error) {
	replaced, err := a.node.users.Add(req.GetName(), req.GetPassword())
	return &pb.AddUserResponse{Replaced: replaced}, reply(err)
}

// RemoveUser removes a registry user; the next request of it gets 401.
func (a *adminAPI) RemoveUser(_ context.Context, req *pb.RemoveUserRequest) (*pb.RemoveUserResponse, error) {
	return &pb.RemoveUserResponse{}, reply(a.node.users.Remove(req.GetName()))
}

// ListUsers lists names and the htpasswd file.
func (a *adminAPI) ListUsers(context.Context, *pb.ListUsersRequest) (*pb.ListUsersResponse, error) {
	return &pb.ListUsersResponse{Names: a.node.users.Names(), Htpasswd: a.node.users.Htpasswd()}, nil
}

// ShowCA returns the bundle, the certificates and the history.
func (a *adminAPI) ShowCA(context.Context, *pb.ShowCARequest) (*pb.ShowCAResponse, error) {
	s, err := a.node.authority.State()
	if err != nil {
		return nil, reply(err)
	}
	resp := &pb.ShowCAResponse{
		BundlePem: s.Bundle.PEM(), Generation: s.Bundle.Generation, Fingerprint: string(s.Bundle.Fingerprint()),
	}
	for _, c := range s.Certificates {
		resp.Certificates = append(resp.Certificates, &pb.CertificateInfo{
			Role: c.Role, Subject: c.Cert.Subject.String(), Fingerprint: string(certs.FingerprintOf(c.Cert)),
			NotBefore: timestamppb.New(c.Cert.NotBefore), NotAfter: timestamppb.New(c.Cert.NotAfter),
			Names: permitted(c.Cert),
		})
	}
	for _, e := range s.History {
		resp.History = append(resp.History, &pb.HistoryEntry{
			Time: timestamppb.New(e.Time), Rotation: e.Rotation, Generation: e.Generation,
			Event: e.Event, By: e.By, Detail: e.Detail, WaitedFor: e.WaitedFor,
		})
	}
	return resp, nil
}

// RemoveHost revokes a host and closes its stream.
func (a *adminAPI) RemoveHost(_ context.Context, req *pb.RemoveHostRequest) (*pb.RemoveHostResponse, error) {
	n := a.node
	h, err := n.identity.Remove(req.GetHost())
	if err != nil {
		return nil, reply(err)
	}
	if err := n.fleet.Drop(h.ID); err != nil { // its stream is closed; the next start drops the record
		n.log.Warn("the removed host's record stays for now", "host", h.Name, "err", err)
	}
	n.reported.beat() // keepRing ends what it knew of the gossip ring
	return &pb.RemoveHostResponse{Id: h.ID, Name: h.Name}, nil
}

// RollGossipKey replaces the gossip key; with a roll under way another follows.
func (a *adminAPI) RollGossipKey(ctx context.Context, _ *pb.RollGossipKeyRequest) (*pb.RollGossipKeyResponse, error) {
	version, err := a.node.rollGossip(callerName(ctx))
	return &pb.RollGossipKeyResponse{Version: version}, reply(err)
}

// CreateToken makes a join token.
func (a *adminAPI) CreateToken(_ context.Context, req *pb.CreateTokenRequest) (*pb.CreateTokenResponse, error) {
	secret, t, err := a.node.identity.CreateToken(identity.TokenOptions{
		Expires: req.GetExpires().AsDuration(), Uses: int(req.GetUses()), Host: req.GetHost(),
	}, time.Now())
	if err != nil {
		return nil, reply(err)
	}
	return &pb.CreateTokenResponse{
		Token: secret.String(), Id: t.ID, Expires: timeOrNil(t.Expires), JoinAddress: a.node.joinAddress(),
	}, nil
}

// ListTokens lists join tokens without their secrets.
func (a *adminAPI) ListTokens(context.Context, *pb.ListTokensRequest) (*pb.ListTokensResponse, error) {
	tokens, err := a.node.identity.Tokens(time.Now())
	if err != nil {
		return nil, reply(err)
	}
	resp := &pb.ListTokensResponse{}
	for _, t := range tokens {
		resp.Tokens = append(resp.Tokens, &pb.TokenInfo{
			Id: t.ID, Created: timestamppb.New(t.Created), Expires: timeOrNil(t.Expires),
			Uses: clampInt32(t.Uses), Used: clampInt32(t.Used), Host: t.Host, State: t.State,
		})
	}
	return resp, nil
}

// RemoveToken revokes a join token.
func (a *adminAPI) RemoveToken(_ context.Context, req *pb.RemoveTokenRequest) (*pb.RemoveTokenResponse, error) {
	return &pb.RemoveTokenResponse{}, reply(a.node.identity.RevokeToken(req.GetId()))
}
