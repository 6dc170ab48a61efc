package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// client talks to the registry as a container engine does: it reads the CA file
// anew for each push and pull, and trusts nothing else.
type client struct {
	ref  name.Reference
	user authn.Basic
}

func (s *stage) client() (client, error) {
	ref, err := name.ParseReference(s.domain + "/hello:1")
	return client{ref, authn.Basic{Username: user, Password: s.password}}, err
}

// caFile reads the certificates that an agent installed.
func caFile(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", path)
	}
	return pool, nil
}

// options trust roots alone; nil are the system's. Each use opens its own
// connections, so that each sees what is served now.
func (c client) options(ctx context.Context, roots *x509.CertPool) ([]remote.Option, func()) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.TLSClientConfig = &tls.Config{RootCAs: roots}
	// Without retries: a pull that fails is to be seen.
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(&c.user), remote.WithTransport(t),
		remote.WithRetryStatusCodes(), remote.WithRetryPredicate(func(error) bool { return false }),
	}, t.CloseIdleConnections
}

func (c client) push(ctx context.Context, roots *x509.CertPool, img v1.Image) error {
	options, done := c.options(ctx, roots)
	defer done()
	return remote.Write(c.ref, img, options...)
}

// pull fetches manifest, configuration and every layer, and checks the digests.
func (c client) pull(ctx context.Context, roots *x509.CertPool) error {
	options, done := c.options(ctx, roots)
	defer done()
	img, err := remote.Image(c.ref, options...)
	if err != nil {
		return err
	}
	return validate.Image(img)
}
