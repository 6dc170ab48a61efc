package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// signsOfLife are what the kernel asks of a server that says nothing: so a partition
// is over for a stream a second after it ends, and a stream that the server has given
// up meanwhile is seen to be. gRPC's pings come once in Keepalive; what is asked here
// wakes no process.
//
// Several must be lost before a stream is: Linux ends a connection at the first that
// was not answered when it has been silent for answerLimit, whatever Count says.
var signsOfLife = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: time.Second, Count: 5}

// answerLimit is how long the server may leave unanswered what was sent to it.
const answerLimit = 20 * time.Second

// verifyServer checks a server's chain against control CAs and returns its
// fleet. The URI is the name; DNS names and addresses may change.
func verifyServer(chain, roots []*x509.Certificate) (fleet string, err error) {
	if len(chain) == 0 {
		return "", errors.New("it showed no certificate")
	}
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return "", err
	}
	if len(chain[0].URIs) != 1 || chain[0].URIs[0].Scheme != "trustcast" || chain[0].URIs[0].Path != "/server" {
		return "", errors.New("its certificate is not a server's")
	}
	return chain[0].URIs[0].Host, nil
}

// clientConfig is TLS with this host's identity, to its own server only.
func (e enrolment) clientConfig() (*tls.Config, error) {
	cert, err := e.certificate()
	if err != nil {
		return nil, err
	}
	roots, err := e.roots()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &cert, nil
		},
		InsecureSkipVerify: true, //nolint:gosec // verified below: by fleet, not by DNS name
		VerifyConnection: func(cs tls.ConnectionState) error {
			fleet, err := verifyServer(cs.PeerCertificates, withShown(roots, cs.PeerCertificates))
			if err == nil && fleet != e.FleetID {
				err = fmt.Errorf("it is of fleet %s, this host of %s", fleet, e.FleetID)
			}
			if err != nil {
				return fmt.Errorf("what answers at %s is not this host's server: %w; if the server was made anew, run `trustcast-agent leave`, then join with a token of it", e.Server, err)
			}
			return nil
		},
	}, nil
}

func (a *membership) dialServer(e enrolment) (*grpc.ClientConn, error) {
	cfg, err := e.clientConfig()
	if err != nil {
		return nil, err
	}
	return dial(a.cfg, e.Server, cfg)
}

func dial(cfg Config, address string, tlsConfig *tls.Config) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return cfg.Dial(ctx, "tcp", addr) }),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectLimit}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: cfg.Keepalive, Timeout: answerLimit}),
		grpc.WithStaticStreamWindowSize(64<<10), // a growing one is measured with a ping for each message
		grpc.WithReadBufferSize(wireBuffer), grpc.WithWriteBufferSize(wireBuffer),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUserAgent("trustcast-agent/"+cfg.Version),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn, nil
}
