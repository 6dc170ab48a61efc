package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// pull does what an engine does before it pulls: a handshake verified by what
// is in the host's certs.d alone. made is false when there was no server at
// this moment, and nothing was verified.
func (w *world) pull(h *host) (made bool, err error) {
	roots, err := readRoots(h.caFile())
	if err != nil {
		return true, err
	}
	return w.shake("client of "+h.name, roots)
}

// shake verifies what is served with roots.
func (w *world) shake(from string, roots []*x509.Certificate) (made bool, err error) {
	_, made, err = w.greet(from, roots)
	return made, err
}

// greet is shake and returns the leaf that was shown and verified.
func (w *world) greet(from string, roots []*x509.Certificate) (leaf *x509.Certificate, made bool, err error) {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := w.net.dialFrom(from)(ctx, "tcp", registry)
	if err != nil {
		return nil, false, nil //nolint:nilerr // that is what made says
	}
	defer func() { _ = conn.Close() }()
	client := tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: domain})
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, true, err
	}
	return client.ConnectionState().PeerCertificates[0], true, nil
}

func readRoots(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return certs.ParsePEM(data)
}

// negativeControl: whoever trusts another CA does not verify what is served, so
// a handshake that is verified proves something.
func (w *world) negativeControl() {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	stranger, err := certs.NewCA(certs.CATemplate{
		Names: []certs.Name{{Host: domain, Port: 5000}}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}, key)
	if err != nil {
		w.t.Fatal(err)
	}
	made, err := w.shake("stranger", []*x509.Certificate{stranger.Cert})
	if unknown := new(x509.UnknownAuthorityError); !made || !errors.As(err, unknown) {
		w.t.Fatalf("a stranger's root verifies what is served: made %v, %v", made, err)
	}
}
