package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const (
	// enrollLimit bounds one enrolment call; the server needs milliseconds.
	enrollLimit = 30 * time.Second
	// connectLimit bounds TCP and TLS to the server.
	connectLimit = 10 * time.Second
	// wireBuffer for each direction holds what is usual here; gRPC's own 32 KiB would
	// be a tenth of all that an idle agent has in use.
	wireBuffer = 4 << 10
	// maxMessage bounds what a server may send (bytes); ours sends under 10 kB.
	maxMessage = 1 << 20
)

// enroll makes this machine a host of a fleet. The token's pin decides whom to
// trust before the secret is sent; the key is on disk before its CSR leaves, so
// a lost reply or a crash costs a repetition with the same result.
func enroll(ctx context.Context, cfg Config, s store) (enrolment, error) {
	if cfg.Token == "" {
		return enrolment{}, cfg.notJoined()
	}
	token, err := certs.ParseToken(cfg.Token)
	if err != nil {
		return enrolment{}, err
	}
	if err := cfg.checkServer(); err != nil {
		return enrolment{}, err
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
	names, err := parseNames(e.Domain, nil)
	if err != nil {
		return enrolment{}, err
	}
	if err := cfg.unclaimed(names); err != nil {
		return enrolment{}, fmt.Errorf("%w, then this line again, which is good for this host still; or `trustcast host rm %s` on the server of the token", err, e.Name)
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
// fleet; a new address is tried, and kept once this host's server answered there.
func (a *membership) checkJoin() error {
	if err := a.enrolment.isOf(a.cfg.Token); err != nil {
		return err
	}
	if a.cfg.Server != "" && a.cfg.Server != a.enrolment.Server {
		a.oldAddress, a.enrolment.Server = a.enrolment.Server, a.cfg.Server
	}
	return nil
}

// answered keeps a new address at which this host's own server has answered.
func (a *membership) answered() {
	a.link.mu.Lock()
	old := a.oldAddress
	a.oldAddress = ""
	a.link.mu.Unlock()
	if old == "" {
		return
	}
	if err := a.changeIdentity(func(*enrolment) {}); err != nil {
		a.log.Warn("the server's new address is not written down", "err", err)
		return
	}
	a.log.Info("the server has another address", "before", old, "now", a.enrolment.Server)
}

// isOf refuses a token of another fleet; "" is none.
func (e enrolment) isOf(token string) error {
	if token == "" {
		return nil
	}
	parsed, err := certs.ParseToken(token)
	if err != nil {
		return err
	}
	if !e.pins(parsed) {
		return fmt.Errorf("this host belongs to another fleet already (%s, server %s): run `trustcast-agent leave %s` first, then join again", e.Domain, e.Server, e.Domain)
	}
	return nil
}

// pins: the token is of this fleet.
func (e enrolment) pins(token certs.Token) bool {
	return slices.ContainsFunc(e.ControlCAs, func(der []byte) bool {
		ca, err := certs.ParseCertificate(der)
		return err == nil && slices.Contains(token.Pins, certs.Pin(ca))
	})
}

// CheckToken says why text is no join token; nothing is asked of its server.
func CheckToken(text string) error {
	_, err := certs.ParseToken(text)
	return err
}

// ErrNoToken says that joining takes a token.
var ErrNoToken = errors.New("the token is missing: --token or --token-file")

func (cfg Config) notJoined() error {
	if cfg.Server != "" {
		return fmt.Errorf("%w; the line that `trustcast token create` prints on the server has it", ErrNoToken)
	}
	return fmt.Errorf("this machine has not joined a fleet (no identity in %s): run the line that `trustcast token create` prints on the server", cfg.base())
}
