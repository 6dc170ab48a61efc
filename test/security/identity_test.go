package security

import (
	"context"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// methods lists every RPC of a service, so that a new one is attacked by itself.
func methods(d grpc.ServiceDesc) (all []method) {
	for _, m := range d.Methods {
		all = append(all, method{path: "/" + d.ServiceName + "/" + m.MethodName})
	}
	for _, s := range d.Streams {
		all = append(all, method{path: "/" + d.ServiceName + "/" + s.StreamName, stream: &s})
	}
	return all
}

type method struct {
	path   string
	stream *grpc.StreamDesc // nil: one request, one answer
}

// try calls a method with an empty message; every message of ours parses from
// nothing.
func (m method) try(t *testing.T, conn *grpc.ClientConn) codes.Code {
	t.Helper()
	if m.stream == nil {
		return status.Code(conn.Invoke(call(t), m.path, &emptypb.Empty{}, &emptypb.Empty{}))
	}
	ctx, cancel := context.WithCancel(call(t))
	defer cancel()
	s, err := conn.NewStream(ctx, m.stream, m.path)
	if err != nil {
		return status.Code(err)
	}
	_ = s.SendMsg(&emptypb.Empty{}) // a refusal is seen by receiving
	return status.Code(s.RecvMsg(&emptypb.Empty{}))
}

// TestEveryCallButEnrollNeedsAnIdentity tries every RPC with everything that is
// not the identity of a host of this fleet.
func TestEveryCallButEnrollNeedsAnIdentity(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	w := start(t, func(init *server.InitConfig, cfg *server.Config) {
		// The fleet is old enough for identities that ended long ago.
		init.Now = func() time.Time { return time.Now().Add(-2 * year) }
		init.CALife, init.LeafLife = 5*year, 4*year
	})
	var loot loot
	until(t, "the server's own identity is renewed", func() bool {
		loot = w.steal()
		return time.Now().Before(loot.server.cert.NotAfter)
	})
	h, other, removed, renewed := w.rawHost("honest"), w.rawHost("other"), w.rawHost("removed"), w.rawHost("renewed")
	w.remove("removed")
	old := renewed.pair
	renewed.pair = renewed.renew()
	renewed.renew() // its first use makes the new key the current one

	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	host := forged{fleet: h.fleet, path: "/host/" + h.id, usage: x509.ExtKeyUsageClientAuth}
	with := func(change func(*forged)) forged {
		f := host
		change(&f)
		return f
	}
	expired := func(since time.Duration) forged {
		return with(func(f *forged) { f.notBefore, f.notAfter = ago(since+90*24*time.Hour), ago(since) })
	}
	const refused = codes.Unauthenticated
	tests := []struct {
		name     string
		identity *pair
		want     codes.Code // of every call but Enroll and Renew
		renew    codes.Code
	}{
		{"nobody", nil, refused, refused},
		{"signed by another CA", newControlCA(t).forge(t, h.key, host), refused, refused},
		{"signed by a host", pair{cert: h.cert, key: h.key}.forge(t, h.key, host), refused, refused},
		{"the server", &loot.server, refused, refused},
		{"the control CA", &loot.ca, refused, refused},
		{"another fleet", loot.ca.forge(t, h.key, with(func(f *forged) { f.fleet = "00112233445566778899aabbccddeeff" })), refused, refused},
		{"no host", loot.ca.forge(t, h.key, with(func(f *forged) { f.path = "/server" })), refused, refused},
		{"an unknown host", loot.ca.forge(t, h.key, with(func(f *forged) { f.path = "/host/00112233445566778899aabbccddeeff" })), refused, refused},
		{"a path that leads elsewhere", loot.ca.forge(t, h.key, with(func(f *forged) { f.path = "/host/x/../" + h.id })), refused, refused},
		{"for serving", loot.ca.forge(t, h.key, with(func(f *forged) { f.usage = x509.ExtKeyUsageServerAuth })), refused, refused},
		{"another host's key", loot.ca.forge(t, other.key, host), refused, refused},
		{"not valid yet", loot.ca.forge(t, h.key, with(func(f *forged) { f.notBefore, f.notAfter = ago(-time.Hour), ago(-2*time.Hour) })), refused, refused},
		{"expired", loot.ca.forge(t, h.key, expired(time.Minute)), refused, codes.OK},
		{"expired for almost a year", loot.ca.forge(t, h.key, expired(year-time.Hour)), refused, codes.OK},
		{"expired for more than a year", loot.ca.forge(t, h.key, expired(year+time.Hour)), refused, refused},
		{"replaced", &old, refused, refused},
		{"removed", &removed.pair, codes.PermissionDenied, codes.PermissionDenied},
		{"removed and expired", loot.ca.forge(t, removed.key, forged{fleet: h.fleet, path: "/host/" + removed.id, usage: x509.ExtKeyUsageClientAuth, notBefore: ago(year), notAfter: ago(time.Hour)}), refused, codes.PermissionDenied},

		{"honest: as enrolled", &h.pair, codes.OK, codes.OK},
		{"honest: renewed", &renewed.pair, codes.OK, codes.OK},
		{"honest: made as the forged ones are", loot.ca.forge(t, h.key, host), codes.OK, codes.OK},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, m := range methods(pb.AgentService_ServiceDesc) {
				conn := w.client(test.identity)
				want := test.want
				switch m.path {
				case pb.AgentService_Enroll_FullMethodName:
					continue
				case pb.AgentService_Renew_FullMethodName:
					_, err := pb.NewAgentServiceClient(conn).Renew(call(t), &pb.RenewRequest{Csr: newCSR(t, newKey(t), "")})
					if got := status.Code(err); got != test.renew {
						t.Errorf("%s: %v, want %v (%v)", m.path, got, test.renew, err)
					}
					continue
				}
				if got := m.try(t, conn); got != want {
					t.Errorf("%s: %v, want %v", m.path, got, want)
				}
			}
		})
	}
}

// TestAgentsCannotAdminister: the operators' service is not on the agents' port
// at all, whoever asks.
func TestAgentsCannotAdminister(t *testing.T) {
	t.Parallel()
	w := start(t)
	h, loot := w.rawHost("honest"), w.steal()
	for name, identity := range map[string]*pair{"nobody": nil, "a host": &h.pair, "the server itself": &loot.server} {
		for _, m := range methods(pb.AdminService_ServiceDesc) {
			if got := m.try(t, w.client(identity)); got != codes.Unimplemented {
				t.Errorf("%s calls %s: %v, want %v", name, m.path, got, codes.Unimplemented)
			}
		}
	}
	if w.host("honest") == nil { // over the socket the same service is there
		t.Error("the operator does not see the host")
	}
	services := []string{pb.AdminService_ServiceDesc.ServiceName, pb.AgentService_ServiceDesc.ServiceName}
	if slices.Contains(services, "") || len(methods(pb.AdminService_ServiceDesc)) < 10 || len(methods(pb.AgentService_ServiceDesc)) < 3 {
		t.Error("the descriptors are empty: nothing was tried")
	}
}

// TestStreamEndsWithItsIdentity: a stream is judged with each report, not only
// when it opens.
func TestStreamEndsWithItsIdentity(t *testing.T) {
	t.Parallel()
	w := start(t)
	h := w.rawHost("renewed")
	s := w.sync(&h.pair)
	s.report(&pb.Report{})
	s.report(complete(t, s.wanted()))
	until(t, "the stream counts", func() bool { return w.host("renewed").GetState() == "trusted" })

	next := h.renew()
	if _, err := w.agentService(&next).Renew(call(t), &pb.RenewRequest{Csr: newCSR(t, newKey(t), "")}); err != nil {
		t.Fatal(err)
	}
	s.report(&pb.Report{})
	if got, _ := s.end(); got != codes.Unauthenticated {
		t.Errorf("a stream of the replaced key ended with %v, want %v", got, codes.Unauthenticated)
	}
}
