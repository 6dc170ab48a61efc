package security

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/records"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p pair) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newCSR is what an agent sends; a name in it counts for nothing.
func newCSR(t *testing.T, key crypto.Signer, commonName string) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// client connects to the server's port for agents as whoever holds identity;
// nil: nobody. An attacker does not check whom it talks to.
func (w *world) client(identity *pair) *grpc.ClientConn {
	w.t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	if identity != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return identity.tls(), nil }
	}
	return w.connect(credentials.NewTLS(cfg))
}

func (w *world) connect(creds credentials.TransportCredentials, more ...grpc.DialOption) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+serverAddress, append(more, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return w.wire.dialer("attacker")(ctx, "tcp", address)
		}))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) agentService(identity *pair) pb.AgentServiceClient {
	return pb.NewAgentServiceClient(w.client(identity))
}

// call is the context of one call by hand.
func call(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// enrol sends one Enroll by hand.
func (w *world) enrol(token string, change func(*pb.EnrollRequest)) (*pb.EnrollResponse, error) {
	w.t.Helper()
	parsed, err := certs.ParseToken(token)
	if err != nil {
		w.t.Fatal(err)
	}
	req := &pb.EnrollRequest{TokenId: parsed.ID, TokenSecret: parsed.Secret, Name: "raw"}
	change(req)
	return w.agentService(nil).Enroll(call(w.t), req)
}

// rawHost is a host made by hand, without an agent.
type rawHost struct {
	pair
	w        *world
	id, name string
	fleet    string
	gossip   *pb.Gossip
}

func (w *world) rawHost(name string) *rawHost {
	w.t.Helper()
	h := &rawHost{w: w, name: name, pair: pair{key: newKey(w.t)}}
	r, err := w.enrol(w.token(&pb.CreateTokenRequest{}), func(req *pb.EnrollRequest) {
		req.Name, req.Csr = name, newCSR(w.t, h.key, "")
	})
	if err != nil {
		w.t.Fatal(err)
	}
	h.id, h.fleet, h.gossip = r.GetHostId(), r.GetFleetId(), r.GetGossip()
	h.cert = parse(w.t, r.GetIdentity())
	return h
}

// renew gets an identity for a new key, which h does not use yet.
func (h *rawHost) renew() pair {
	h.w.t.Helper()
	next := pair{key: newKey(h.w.t)}
	r, err := h.w.agentService(&h.pair).Renew(call(h.w.t), &pb.RenewRequest{Csr: newCSR(h.w.t, next.key, "")})
	if err != nil {
		h.w.t.Fatal(err)
	}
	next.cert = parse(h.w.t, r.GetIdentity())
	return next
}

// rawStream is a Sync stream by hand.
type rawStream struct {
	pb.AgentService_SyncClient
	t        *testing.T
	sequence uint64
	cancel   context.CancelFunc
}

// sync opens a stream; nothing is reported yet.
func (w *world) sync(identity *pair) *rawStream {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	s, err := w.agentService(identity).Sync(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return &rawStream{AgentService_SyncClient: s, t: w.t, cancel: cancel}
}

// report sends one, in order.
func (s *rawStream) report(r *pb.Report) {
	s.t.Helper()
	s.sequence++
	r.Boot, r.Sequence = 1, s.sequence
	_ = s.Send(&pb.SyncRequest{Report: r}) // a broken stream is seen by receiving
}

// wanted receives the next wanted state.
func (s *rawStream) wanted() *pb.Wanted {
	s.t.Helper()
	m, err := s.Recv()
	if err != nil {
		s.t.Fatalf("no state was sent: %v", err)
	}
	return m.GetWanted()
}

// wantedFrom receives until a generation comes; one that is known may be sent again.
func (s *rawStream) wantedFrom(generation uint64) *pb.Wanted {
	s.t.Helper()
	defer time.AfterFunc(patience, s.cancel).Stop()
	for {
		if w := s.wanted(); w.GetGeneration() >= generation {
			return w
		}
	}
}

// end reads until the stream ends, and returns why and the newest generation
// that was sent; Canceled if it does not end by itself.
func (s *rawStream) end() (code codes.Code, newest uint64) {
	defer time.AfterFunc(patience, s.cancel).Stop()
	for {
		m, err := s.Recv()
		if err != nil {
			return status.Code(err), newest
		}
		newest = max(newest, m.GetWanted().GetGeneration())
	}
}

// complete is the report of a host where all is as wanted.
func complete(t *testing.T, w *pb.Wanted) *pb.Report {
	t.Helper()
	var roots []*x509.Certificate
	r := &pb.Report{
		Revision: w.GetRevision(), Rotation: w.GetRotation(), Generation: w.GetGeneration(),
		Offline: true, Probe: pb.Outcome_OUTCOME_OK, Live: pb.Outcome_OUTCOME_OK, Gossip: "off",
	}
	for _, der := range w.GetBundle() {
		root := parse(t, der)
		roots = append(roots, root)
		r.SoloRoots = append(r.SoloRoots, string(certs.FingerprintOf(root)))
	}
	r.Fingerprint = string(certs.FingerprintOf(roots...))
	return r
}

func parse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// loot is what a thief of the server's state directory has.
type loot struct {
	fleet  string
	ca     pair // the control CA
	server pair // the server's identity
}

// steal reads the control CA from the server's own files.
func (w *world) steal() (l loot) {
	w.t.Helper()
	until(w.t, "record and keys agree", func() bool {
		var err error
		l, err = w.read()
		return err == nil
	})
	return l
}

// read is one look at files that the server may be changing.
func (w *world) read() (l loot, err error) {
	var rec struct {
		Value struct {
			FleetID   string        `json:"fleet_id"`
			CA        []byte        `json:"ca"`
			CAKey     records.KeyID `json:"ca_key"`
			Server    []byte        `json:"server"`
			ServerKey records.KeyID `json:"server_key"`
		} `json:"value"`
	}
	state := filepath.Join(w.cfg.DataDir, "state")
	data, err := os.ReadFile(filepath.Join(state, "records", "control.json"))
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return l, err
	}
	keys, err := records.OpenKeys(filepath.Join(state, "keys"))
	if err != nil {
		return l, err
	}
	v := rec.Value
	l = loot{fleet: v.FleetID, ca: pair{cert: parse(w.t, v.CA)}, server: pair{cert: parse(w.t, v.Server)}}
	if l.ca.key, err = keys.Load(v.CAKey); err != nil {
		return l, err
	}
	l.server.key, err = keys.Load(v.ServerKey)
	return l, err
}

// newControlCA is a control CA of the attacker's own.
func newControlCA(t *testing.T) pair {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "trustcast control CA 00000000"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{cert: parse(t, der), key: key}
}

// forged says what an identity made by hand shall claim.
type forged struct {
	fleet, path         string
	usage               x509.ExtKeyUsage
	notBefore, notAfter time.Time
}

// forge makes an identity for key.
func (p pair) forge(t *testing.T, key *ecdsa.PrivateKey, f forged) *pair {
	t.Helper()
	return &pair{cert: p.sign(t, key.Public(), f), key: key}
}

func (p pair) sign(t *testing.T, public any, f forged) *x509.Certificate {
	t.Helper()
	if f.notAfter.IsZero() {
		f.notBefore, f.notAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "forged"},
		NotBefore: f.notBefore, NotAfter: f.notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{f.usage},
		URIs: []*url.URL{{Scheme: "trustcast", Host: f.fleet, Path: f.path}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, public, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}
