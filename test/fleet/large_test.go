//go:build linux

package fleet_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/time/rate"
)

const (
	largeImage = domain + "/fleet/large:v1"
	// Docker fetches three layers at once, so that most of them begin long
	// after the pull did, with the TLS configuration from before the switch.
	largeLayers     = 10
	largeLayerBytes = 21 << 20
	// largeRate in bytes a second, for who wants to see a pull's begin.
	largeRate = 20 << 20
	// heldRate in bytes a second keeps a large pull from ending meanwhile.
	heldRate = 1 << 20
	// largeBegun is how much must have arrived before the rotation begins.
	largeBegun = 8 << 20
)

// testLargePull holds the pull of a large image open across a whole rotation.
func (f *fleet) testLargePull(t *testing.T) {
	must(t, f.pushLarge())
	h := f.hosts[0]
	limit := rate.NewLimiter(largeRate, chunkSize)
	r := newRelay(t, f, f.server.listen(registryPort), 0, limit)
	undo, err := f.net.redirect(h.name, f.server.listen(registryPort), r.address())
	must(t, err)
	t.Cleanup(func() { must(t, undo()) })

	begin, pulled := time.Now(), make(chan error, 1)
	go func() { pulled <- h.pull(largeImage) }()
	must(t, until(time.Minute, "the large pull is under way", func() (bool, string) { return r.bytes() > largeBegun, "" }))
	limit.SetLimit(heldRate)
	n := f.beginRotation(t)
	f.waitRotation(t, n)
	limit.SetLimit(rate.Inf)
	switched, err := f.server.phaseTime(n, "switched")
	must(t, err)
	idle, err := f.server.phaseTime(n, "idle")
	must(t, err)
	f.sum.pulls++
	if err := <-pulled; err != nil {
		f.sum.failed++
		t.Errorf("%s: %v", h.name, err)
	}
	end := time.Now()
	if !end.After(idle) {
		t.Errorf("the pull ended %v before the rotation did: nothing is shown", idle.Sub(end))
	}
	late := r.openedAfter(switched)
	if late == 0 {
		t.Error("the pull opened no connection after the switch: nothing is shown")
	}
	t.Logf("large pull: %d MiB in %v; switched %v after its start, idle %v; %d of its connections after the switch",
		r.bytes()>>20, end.Sub(begin).Round(time.Millisecond), switched.Sub(begin).Round(time.Millisecond), idle.Sub(begin).Round(time.Millisecond), late)
	_, err = h.docker("image", "rm", "--force", largeImage)
	must(t, err)
}

// pushLarge puts the image into the registry from here: no engine has to pack it.
func (f *fleet) pushLarge() error {
	ref, err := name.NewTag(largeImage)
	if err != nil {
		return err
	}
	img, err := random.Image(largeLayerBytes, largeLayers)
	if err != nil {
		return err
	}
	client, err := newClient(f.hosts[0].certFile(), f.server.listen(registryPort))
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	return remote.Write(ref, img, remote.WithTransport(client), remote.WithAuth(&authn.Basic{Username: user, Password: password}))
}

// newClient trusts what is in one file of a host's certs.d and nothing else, as
// Docker does, and opens a connection for each request, as Docker may.
func newClient(certFile, address string) (*http.Transport, error) {
	pem, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", certFile)
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		},
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}, nil
}
