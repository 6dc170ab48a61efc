package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
)

// agentAPI is what hosts call.
type agentAPI struct {
	pb.UnimplementedAgentServiceServer
	node *node
}

// hostKey carries the authenticated host in a call's context.
type hostKey struct{}

func hostOf(ctx context.Context) identity.Host {
	h, _ := ctx.Value(hostKey{}).(identity.Host)
	return h
}

// authenticate finds the host behind a call. Enroll needs none, Renew takes an
// expired one, everything else a valid one.
func (n *node) authenticate(ctx context.Context, method string) (context.Context, error) {
	if method == pb.AgentService_Enroll_FullMethodName {
		return ctx, nil
	}
	host, err := n.identity.Authenticate(clientCertificate(ctx), time.Now(), method == pb.AgentService_Renew_FullMethodName)
	if err != nil {
		return nil, reply(err)
	}
	return context.WithValue(ctx, hostKey{}, host), nil
}

func clientCertificate(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	return info.State.PeerCertificates[0]
}

func (n *node) authenticateCall(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := n.authenticate(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// hostStream is a stream with the authenticated host in its context.
type hostStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context carries the host.
func (s hostStream) Context() context.Context { return s.ctx }

func (n *node) authenticateStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := n.authenticate(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, hostStream{ServerStream: ss, ctx: ctx})
}

// Enroll makes a host of the fleet.
func (a *agentAPI) Enroll(ctx context.Context, req *pb.EnrollRequest) (*pb.EnrollResponse, error) {
	n := a.node
	host, cert, revoked, err := n.identity.Enroll(identity.Enrollment{
		TokenID: req.GetTokenId(), Secret: req.GetTokenSecret(), CSR: req.GetCsr(), Name: req.GetName(),
	}, time.Now())
	if err != nil {
		n.log.Warn("enrolment refused", "name", fmt.Sprintf("%.63q", req.GetName()), "address", addressOf(ctx), "err", err)
		return nil, reply(err)
	}
	if revoked != "" {
		n.log.Info("host replaced by a new enrolment", "host", host.Name, "id", revoked)
		if err := n.fleet.Drop(revoked); err != nil {
			return nil, reply(err)
		}
		n.reported.beat() // keepRing ends what it knew of the gossip ring
	}
	if err := n.fleet.Uncover(host.ID); err != nil {
		return nil, reply(err)
	}
	n.log.Info("host enrolled", "host", host.Name, "id", host.ID, "address", addressOf(ctx))
	return &pb.EnrollResponse{
		FleetId: n.identity.FleetID(), HostId: host.ID, Domain: n.names[0].String(),
		Identity: cert, ControlCas: n.identity.ControlCAs(), Gossip: n.gossipConfig(),
		Adopted: string(n.authority.Wanted().Adopted),
	}, nil
}

// Renew signs a host's next key. An agent closes its stream before it renews; a
// host whose stream answers meanwhile was cloned, and its copy could take the
// identity over.
func (a *agentAPI) Renew(ctx context.Context, req *pb.RenewRequest) (*pb.RenewResponse, error) {
	n, host := a.node, hostOf(ctx)
	if n.fleet.Cloned(ctx, host.ID, addressOf(ctx)) {
		n.log.Warn("renewal refused: cloned host", "host", host.Name, "address", addressOf(ctx))
		return nil, reply(fleet.ErrCloned)
	}
	cert, err := n.identity.Renew(host.ID, req.GetCsr(), time.Now())
	if err != nil {
		return nil, reply(err)
	}
	n.log.Info("identity renewed", "host", host.Name)
	return &pb.RenewResponse{Identity: cert, ControlCas: n.identity.ControlCAs()}, nil
}

// Sync is one host's stream. Its first report attaches it; from then on every
// change of the record goes down and every report comes up, until either side
// ends it, the host is removed, or a newer stream takes over.
func (a *agentAPI) Sync(stream grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse]) error {
	n, host := a.node, hostOf(stream.Context())
	first, err := n.firstReport(stream, host.ID)
	if errors.Is(err, errHostDone) {
		return nil // gone before it said anything
	}
	if err != nil {
		return err
	}
	s, err := n.fleet.Attach(stream.Context(), host.ID, addressOf(stream.Context()))
	if err != nil {
		if errors.Is(err, fleet.ErrCloned) {
			n.log.Warn("stream refused: cloned host", "host", host.Name, "address", addressOf(stream.Context()))
		}
		return reply(err)
	}
	if err := n.identity.Active(host.ID); err != nil { // removed since its call was let in
		return reply(errors.Join(err, n.fleet.Drop(host.ID)))
	}
	defer s.Close()
	defer n.edge.Forget(addressOf(stream.Context())) // all that came from there until now was of a host
	n.log.Info("host connected", "host", host.Name, "address", addressOf(stream.Context()))
	defer n.log.Info("host disconnected", "host", host.Name)

	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	go func() { // ends with the stream: Recv returns once the handler has
		cancel(n.receive(stream, s, first))
	}()
	return n.send(ctx, stream, s, host.ID)
}

var (
	// errHostDone: the host closed its side.
	errHostDone = errors.New("the host closed its stream")
	// errStopping: this server ends.
	errStopping = status.Error(codes.Unavailable, "the server is stopping")
)

// firstLimit is how long a stream may stay open without a report. An agent's
// first one can wait for handshakes with an edge that does not answer; it gives
// them 20 s in all, on a busy machine more.
const firstLimit = 5 * time.Minute

// maxReports a second are taken from one host; a rotation causes about four.
const maxReports = 10

// firstReport waits until a new stream says something. No other part knows of
// the stream yet, so it looks by itself whether the host is removed meanwhile.
func (n *node) firstReport(stream grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse], id string) (*pb.SyncRequest, error) {
	changed, stop := n.identity.WatchHost(id)
	defer stop()
	first, gone := make(chan *pb.SyncRequest, 1), make(chan struct{})
	go func() { // ends with the stream: Recv returns once the handler has
		m, err := stream.Recv()
		if err != nil {
			close(gone)
			return
		}
		first <- m
	}()
	limit := time.NewTimer(firstLimit)
	defer limit.Stop()
	for {
		select {
		case m := <-first:
			return m, nil
		case <-gone:
			return nil, errHostDone
		case <-changed:
			if err := n.identity.Active(id); err != nil {
				return nil, reply(err)
			}
		case <-n.stopping:
			return nil, errStopping
		case <-limit.C:
			return nil, status.Errorf(codes.DeadlineExceeded, "no report within %s", firstLimit)
		}
	}
}

// receive takes reports until the stream ends. Each is judged like a call: the
// identity may have expired, or its key was replaced, since the stream opened.
func (n *node) receive(stream grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse], s *fleet.Stream, req *pb.SyncRequest) error {
	address, bearer := addressOf(stream.Context()), &identity.Bearer{Cert: clientCertificate(stream.Context())}
	limit := rate.NewLimiter(maxReports, 2*maxReports)
	for {
		if err := limit.Wait(stream.Context()); err != nil {
			return err
		}
		if _, err := n.identity.AuthenticateAgain(bearer, time.Now()); err != nil {
			return err
		}
		e, d := evidenceOf(req.GetReport())
		d.Address = address
		if err := s.Report(e, d); err != nil {
			return err
		}
		var err error
		if req, err = stream.Recv(); err != nil {
			return errHostDone
		}
	}
}

// send writes the newest wanted state at once and whenever the stream is woken.
func (n *node) send(ctx context.Context, stream grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse], s *fleet.Stream, id string) error {
	for {
		if err := n.identity.Active(id); err != nil {
			return reply(err)
		}
		if err := sendWithin(stream, n.wantedMessage(), s.Ended()); err != nil {
			return err
		}
		select {
		case <-s.Woken():
		case <-s.Ended():
			if err := n.identity.Active(id); err != nil {
				return reply(err)
			}
			return status.Error(codes.Aborted, "a newer stream of this host took over")
		case <-n.stopping:
			return errStopping
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errHostDone) {
				return reply(err)
			}
			return nil
		}
	}
}

// sendWithin sends one message, or gives the stream up after sendLimit or when
// it ended: gRPC blocks while a slow agent's window is full.
func sendWithin(stream grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse], m *pb.SyncResponse, ended <-chan struct{}) error {
	var g errgroup.Group
	sent := make(chan struct{})
	g.Go(func() error {
		defer close(sent)
		return stream.Send(m)
	})
	limit := time.NewTimer(sendLimit)
	defer limit.Stop()
	select {
	case <-sent:
		return g.Wait()
	case <-ended:
		return nil // the caller sees why
	case <-limit.C:
		return status.Error(codes.DeadlineExceeded, "the host does not read its stream")
	}
}

func addressOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
