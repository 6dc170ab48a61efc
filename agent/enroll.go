package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const (
	// enrollLimit bounds one enrolment call; the server needs milliseconds.
	enrollLimit = 30 * time.Second
	// connectLimit bounds TCP and TLS to the server.
	connectLimit = 10 * time.Second
	// maxMessage bounds what a server may send (bytes); ours sends under 10 kB.
	maxMessage = 1 << 20
)

// enroll makes this machine a host of a fleet. The token's pin decides whom to
// trust before the secret is sent; the key is on disk before its CSR leaves, so
// a lost reply or a crash costs a repetition with the same result.
func enroll(ctx context.Context, cfg Config, s store) (enrolment, error) {
	if cfg.Token == "" {
		return enrolment{}, fmt.Errorf("this machine has not joined a fleet (no identity in %s): run the line that `trustcast token create` prints on the server", cfg.DataDir)
	}
	token, err := certs.ParseToken(cfg.Token)
	if err != nil {
		return enrolment{}, err
	}
	if _, _, err := net.SplitHostPort(cfg.Server); err != nil {
		return enrolment{}, fmt.Errorf("the server's address %q is not HOST:PORT; the port is usually 7443", cfg.Server)
	}
	key, err := s.pendingKey(token.ID)
	if err != nil {
		return enrolment{}, err
	}
	csr, err := request(key)
	if err != nil {
		return enrolment{}, err
	}
	pinned := &pinnedServer{pins: token.Pins}
	conn, err := dial(cfg, cfg.Server, pinned.config())
	if err != nil {
		return enrolment{}, err
	}
	defer func() { _ = conn.Close() }() // the call's error is the one that counts
	ctx, cancel := context.WithTimeout(ctx, enrollLimit)
	defer cancel()
	resp, err := pb.NewAgentServiceClient(conn).Enroll(ctx, &pb.EnrollRequest{
		TokenId: token.ID, TokenSecret: token.Secret, Csr: csr, Name: cfg.Name, Version: cfg.Version,
	})
	if err != nil {
		return enrolment{}, joinError(cfg.Server, err, pinned.problem)
	}
	e, err := enrolled(cfg, resp, key, pinned)
	if err != nil {
		return enrolment{}, err
	}
	if err := s.write(identityFile, e); err != nil {
		return enrolment{}, err
	}
	return e, s.remove(pendingFile)
}

// enrolled checks the server's answer against what the pin proved.
func enrolled(cfg Config, resp *pb.EnrollResponse, key *ecdsa.PrivateKey, pinned *pinnedServer) (enrolment, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return enrolment{}, fmt.Errorf("keep the key: %w", err)
	}
	g, err := vetRing(resp.GetGossip())
	if err != nil {
		return enrolment{}, err
	}
	e := enrolment{
		Format: stateFormat, FleetID: resp.GetFleetId(), HostID: resp.GetHostId(), Name: cfg.Name, Domain: resp.GetDomain(),
		Server: cfg.Server, Cert: resp.GetIdentity(), Key: der, Received: cfg.Now().UTC(),
		ControlCAs: [][]byte{pinned.ca.Raw}, Gossip: g,
	}
	if e.Adopted, err = certs.ParseFingerprint(resp.GetAdopted()); err != nil {
		return enrolment{}, fmt.Errorf("the adopted certificate that the server names: %w", err)
	}
	if e.Adopted != "" {
		e.Format = adoptedFormat
	}
	if e.FleetID != pinned.fleet {
		return enrolment{}, fmt.Errorf("the server says it is of fleet %s, its certificate says %s", e.FleetID, pinned.fleet)
	}
	if _, err := certs.ParseName(e.Domain, certs.DefaultPort); err != nil {
		return enrolment{}, fmt.Errorf("the server's domain: %w", err)
	}
	cert, err := certs.ParseCertificate(e.Cert)
	if err != nil {
		return enrolment{}, fmt.Errorf("the identity that the server sent: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return enrolment{}, errors.New("the identity that the server sent is for another key")
	}
	e.Name = cert.Subject.CommonName // a token for a name decides it
	return e, nil
}

func request(key *ecdsa.PrivateKey) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return csr, nil
}

// joinError turns a failed enrolment into a sentence with the next step.
func joinError(server string, err, refused error) error {
	if refused != nil {
		return refused
	}
	s := status.Convert(err)
	if otherProtocol(s.Message()) {
		return fmt.Errorf("%w: what answers at %s does not speak with agents (%s): it may be the registry's port; the server's port for agents is usually 7443", ErrUnreachable, server, s.Message())
	}
	if s.Code() == codes.Unavailable || s.Code() == codes.DeadlineExceeded {
		return fmt.Errorf("%w: %s does not answer (%s): is the server running, is the port open from here, is the address right?", ErrUnreachable, server, s.Message())
	}
	return fmt.Errorf("%s refused: %s", server, s.Message())
}

// otherProtocol: TLS was answered by something that is no gRPC server, in the words of
// a server that knows ALPN and of one that does not.
func otherProtocol(message string) bool {
	return strings.Contains(message, "no application protocol") || strings.Contains(message, "missing selected ALPN property")
}

// ErrUnreachable says that the server did not answer.
var ErrUnreachable = errors.New("the server is unreachable")

// pinnedServer verifies a server at first contact: a certificate that matches a
// pin becomes the only root, and the server's own must chain to it. Its mere
// presence proves nothing.
type pinnedServer struct {
	pins    []string
	ca      *x509.Certificate
	fleet   string
	problem error
}

func (p *pinnedServer) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // verified below, against the pin alone
		VerifyConnection: func(cs tls.ConnectionState) error {
			p.problem = p.verify(cs.PeerCertificates)
			return p.problem
		},
	}
}

func (p *pinnedServer) verify(chain []*x509.Certificate) error {
	for _, c := range chain {
		if c.IsCA && slices.Contains(p.pins, certs.Pin(c)) {
			fleet, err := verifyServer(chain, []*x509.Certificate{c})
			if err != nil {
				return fmt.Errorf("the server shows the pinned CA but its own certificate is not signed by it (%w): this is not the server that made the token; the secret was not sent", err)
			}
			p.ca, p.fleet = c, fleet
			return nil
		}
	}
	return errors.New("the server does not match the token's pin: is this the address of the server that made the token? The secret was not sent")
}

// checkJoin: a token is ignored where an identity is, unless it is of another
// fleet; a new address of the same server is taken.
func (a *agent) checkJoin() error {
	if a.cfg.Token != "" {
		token, err := certs.ParseToken(a.cfg.Token)
		if err != nil {
			return err
		}
		ours := slices.ContainsFunc(a.enrolment.ControlCAs, func(der []byte) bool {
			ca, err := certs.ParseCertificate(der)
			return err == nil && slices.Contains(token.Pins, certs.Pin(ca))
		})
		if !ours {
			return fmt.Errorf("this host belongs to another fleet already (%s, server %s): run `trustcast-agent leave` first, then join again", a.enrolment.Domain, a.enrolment.Server)
		}
	}
	if a.cfg.Server != "" && a.cfg.Server != a.enrolment.Server {
		a.enrolment.Server = a.cfg.Server
		return a.store.write(identityFile, a.enrolment)
	}
	return nil
}

// hostName makes a host name of a system's name.
func hostName(system string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '-'
	}, system)
	return name[:min(63, len(name))]
}
