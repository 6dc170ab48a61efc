package security

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// evil is a server of the attacker's. It keeps every byte that comes after a
// handshake, takes whatever token is shown, and offers what a test says.
type evil struct {
	pb.UnimplementedAgentServiceServer
	t    *testing.T
	loot loot // signs what Enroll returns

	mu         sync.Mutex
	heard      []byte // after handshakes
	handshakes int    // tried
	secrets    [][]byte
	reports    []*pb.Report
	offer      *pb.Wanted
	news       chan struct{} // closed when offer changes
}

// evilServer listens at evilAddress and shows chain, whose first certificate
// belongs to key.
func (w *world) evilServer(l loot, key *ecdsa.PrivateKey, chain ...*x509.Certificate) *evil {
	w.t.Helper()
	e := &evil{t: w.t, loot: l, news: make(chan struct{})}
	cert := tls.Certificate{PrivateKey: key}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	lis, err := w.wire.listen("tcp", evilAddress)
	if err != nil {
		w.t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(&wiretap{
		TransportCredentials: credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13,
		}),
		evil: e,
	}))
	pb.RegisterAgentServiceServer(s, e)
	w.background(func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, s.Stop)
		defer stop()
		return s.Serve(lis)
	})
	return e
}

// wiretap copies what arrives after a handshake.
type wiretap struct {
	credentials.TransportCredentials
	evil *evil
}

func (c *wiretap) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c.evil.mu.Lock()
	c.evil.handshakes++
	c.evil.mu.Unlock()
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return tapped{conn, c.evil}, info, nil
}

func (c *wiretap) Clone() credentials.TransportCredentials { return c }

type tapped struct {
	net.Conn
	evil *evil
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.evil.mu.Lock()
	c.evil.heard = append(c.evil.heard, p[:n]...)
	c.evil.mu.Unlock()
	return n, err
}

// Enroll takes anything and keeps the secret.
func (e *evil) Enroll(_ context.Context, req *pb.EnrollRequest) (*pb.EnrollResponse, error) {
	e.mu.Lock()
	e.secrets = append(e.secrets, req.GetTokenSecret())
	e.mu.Unlock()
	if e.loot.ca.key == nil { // it has heard enough to fail the test
		return nil, errors.New("an impostor cannot answer")
	}
	csr, err := x509.ParseCertificateRequest(req.GetCsr())
	if err != nil {
		return nil, err
	}
	id := strings.Repeat("0", 32)
	cert := e.loot.ca.sign(e.t, csr.PublicKey, forged{fleet: e.loot.fleet, path: "/host/" + id, usage: x509.ExtKeyUsageClientAuth})
	return &pb.EnrollResponse{
		FleetId: e.loot.fleet, HostId: id, Domain: registryName, Identity: cert.Raw, ControlCas: [][]byte{e.loot.ca.cert.Raw},
	}, nil
}

// Sync sends each offer and keeps the reports.
func (e *evil) Sync(stream grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse]) error {
	closed := make(chan struct{})
	go func() { // ends with the stream
		defer close(closed)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.reports = append(e.reports, m.GetReport())
			e.mu.Unlock()
		}
	}()
	for {
		e.mu.Lock()
		offer, news := e.offer, e.news
		e.mu.Unlock()
		if offer != nil {
			if err := stream.Send(&pb.SyncResponse{Wanted: offer}); err != nil {
				return err
			}
		}
		select {
		case <-news:
		case <-closed:
			return nil
		case <-stream.Context().Done():
			return nil
		}
	}
}

// wants offers this on every stream, and forgets the reports before it.
func (e *evil) wants(offer *pb.Wanted) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.offer, e.reports = offer, nil
	close(e.news)
	e.news = make(chan struct{})
}

// reported returns the newest report since the last offer; nil: none.
func (e *evil) reported() *pb.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.reports) == 0 {
		return nil
	}
	return e.reports[len(e.reports)-1]
}

// learned is what it heard after handshakes, and how many were tried.
func (e *evil) learned() (heard []byte, secrets [][]byte, handshakes int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard, e.secrets, e.handshakes
}
