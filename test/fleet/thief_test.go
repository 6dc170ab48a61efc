//go:build linux

package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// testThief copies a live host's identity and tries every call with it, while
// that very host is broken and holds a rotation.
func (f *fleet) testThief(t *testing.T) {
	_, h := f.others()
	before, err := f.server.status()
	must(t, err)
	mend, err := h.freezeCerts()
	must(t, err)
	n := f.beginRotation(t)
	must(t, f.server.wait(time.Minute, h.name+" is waited for", func(st status) bool { return st.number() == n && st.why(h.name) != "" }))

	conn := h.thief(t, f.server.listen(grpcPort))
	f.tryAdmin(t, conn)
	agents := pb.NewAgentServiceClient(conn)
	for range 3 {
		f.tryAgents(t, agents)
		st, err := f.server.status()
		must(t, err)
		if st.number() != n || st.Rotation.Phase != "staged" || st.why(h.name) == "" || len(st.Hosts) != len(before.Hosts) {
			t.Errorf("rotation %d is %s, waiting for %v, %d hosts; want it staged and %s named", st.number(), st.Rotation.Phase, st.Rotation.WaitingFor, len(st.Hosts), h.name)
		}
	}
	must(t, mend())
	f.waitRotation(t, n)
	f.pull(t, h)
	// The twin: what was refused was the theft, not the call.
	must(t, h.stopAgent(9))
	if code := f.lie(t, agents); code != codes.OK {
		t.Errorf("with the host itself away, its identity gets %v", code)
	}
	must(t, h.startAgent())
	f.waitTrusted(t, time.Minute)
}

// thief connects to the server with a copy of the host's identity.
func (h *host) thief(t *testing.T, server string) *grpc.ClientConn {
	t.Helper()
	id := h.stolen(t)
	key, err := x509.ParsePKCS8PrivateKey(id.Key)
	must(t, err)
	cert := tls.Certificate{Certificate: [][]byte{id.Cert}, PrivateKey: key}
	conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, // an attacker does not check whom it talks to
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	})))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// tryAdmin wants every operator's call to be unknown on the agents' port.
func (f *fleet) tryAdmin(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	service := &pb.AdminService_ServiceDesc
	names := []string{}
	for _, m := range service.Methods {
		names = append(names, m.MethodName)
	}
	for _, m := range service.Streams {
		names = append(names, m.StreamName)
	}
	for _, name := range names {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := conn.Invoke(ctx, fmt.Sprintf("/%s/%s", service.ServiceName, name), &emptypb.Empty{}, &emptypb.Empty{})
		cancel()
		if code := grpcstatus.Code(err); code != codes.Unimplemented {
			t.Errorf("AdminService.%s with a stolen identity: %v, want Unimplemented", name, err)
		}
	}
	t.Logf("%d operator's calls refused", len(names))
}

// tryAgents wants every host's call to be refused while the host itself is
// there.
func (f *fleet) tryAgents(t *testing.T, agents pb.AgentServiceClient) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = agents.Enroll(ctx, &pb.EnrollRequest{TokenId: "none", TokenSecret: []byte("none"), Csr: csr, Name: "impostor"})
	if code := grpcstatus.Code(err); code != codes.PermissionDenied {
		t.Errorf("Enroll without a token: %v, want PermissionDenied", err)
	}
	if _, err := agents.Renew(ctx, &pb.RenewRequest{Csr: csr}); grpcstatus.Code(err) != codes.AlreadyExists {
		t.Errorf("Renew with a stolen identity: %v, want AlreadyExists", err)
	}
	if code := f.lie(t, agents); code != codes.AlreadyExists {
		t.Errorf("Sync with a stolen identity: %v, want AlreadyExists", code)
	}
}

// lie reports that all is well with everything, and returns how the stream was
// answered.
func (f *fleet) lie(t *testing.T, agents pb.AgentServiceClient) codes.Code {
	t.Helper()
	st, err := f.server.status()
	must(t, err)
	generation, err := st.Generation.Int64()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := agents.Sync(ctx)
	must(t, err)
	_ = stream.Send(&pb.SyncRequest{Report: &pb.Report{
		Boot: math.MaxUint64, Sequence: math.MaxUint64, Revision: math.MaxUint64, Rotation: uint64(st.number()), Generation: uint64(generation),
		Fingerprint: st.Fingerprint, Offline: true, Probe: pb.Outcome_OUTCOME_OK, Live: pb.Outcome_OUTCOME_OK, Gossip: "ok",
	}}) // a refusal is seen by receiving
	_, err = stream.Recv()
	return grpcstatus.Code(err)
}
