package test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/edge"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/server/users"
	"github.com/trustcast/trustcast/test/images"
)

const (
	registryHost = "registry.test"
	registryName = registryHost + ":5000"
)

// front is a registry as clients see it: edge, users and the embedded engine
// over one data directory, on a port of 127.0.0.1.
type front struct {
	edge    *edge.Edge
	users   *users.Users
	address string
	stop    context.CancelFunc
	ended   chan struct{} // closed when the edge has returned err
	err     error
}

func startFront(t *testing.T, current map[string]*tls.Certificate) *front {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		goleak.VerifyNone(t, ignore, goleak.IgnoreAnyFunction("github.com/docker/go-events.(*Broadcaster).run"))
	})
	store, err := records.Open(t.TempDir())
	noError(t, err)
	root := t.TempDir()
	f := &front{ended: make(chan struct{})}
	f.users, err = users.Open(store, filepath.Join(root, "auth", "htpasswd"))
	noError(t, err)
	f.users.Cost = bcrypt.MinCost
	_, err = f.users.Add("ann", "secret")
	noError(t, err)
	engine, err := registry.NewEmbedded(t.Context(), registry.EmbeddedConfig{Root: root})
	noError(t, err)
	replica, err := engine.Open(t.Context(), "")
	noError(t, err)
	f.edge = edge.New(edge.Config{Domain: registryHost, Hash: f.users.Hash, DummyHash: f.users.DummyHash})
	f.edge.Serve([]edge.Endpoint{{ID: replica.ID, Handler: replica.Handler}})
	noError(t, f.edge.Publish(current, nil))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	f.address = lis.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	f.stop = stop
	go func() {
		defer close(f.ended)
		f.err = f.edge.Run(ctx, lis)
	}()
	t.Cleanup(func() {
		f.stop()
		<-f.ended
		noError(t, f.err)
	})
	return f
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// registryCA is a CA for the registry's name.
func registryCA(t *testing.T, number uint64) certs.CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noError(t, err)
	now := time.Now()
	ca, err := certs.NewCA(certs.CATemplate{
		Number: number, Names: []certs.Name{{Host: registryHost, Port: 5000}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}, key)
	noError(t, err)
	return ca
}

// pairOf is a new leaf of ca with predecessors.
func pairOf(t *testing.T, ca certs.CA, predecessors ...*x509.Certificate) map[string]*tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noError(t, err)
	leaf, err := ca.SignLeaf(registryHost, key.Public(), ca.Cert.NotBefore, ca.Cert.NotAfter)
	noError(t, err)
	pair := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
	for _, c := range predecessors {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return map[string]*tls.Certificate{registryHost: pair}
}

// client is a host: a name server of its own, and the CAs that it trusts.
type client struct {
	*http.Transport
	options []remote.Option
}

func (f *front) client(t *testing.T, user, password string, trusted ...certs.CA) client {
	t.Helper()
	roots := x509.NewCertPool()
	for _, ca := range trusted {
		roots.AddCert(ca.Cert)
	}
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", f.address)
			if err != nil {
				return nil, err
			}
			return conn, conn.(*net.TCPConn).SetReadBuffer(64 << 10) // or it would hold a big blob
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	options := []remote.Option{remote.WithTransport(tr), remote.WithContext(t.Context())}
	if user != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	}
	return client{tr, options}
}

func tag(t *testing.T, s string) name.Tag {
	t.Helper()
	ref, err := name.NewTag(registryName + "/" + s)
	noError(t, err)
	return ref
}

// push makes a random image and pushes it.
func (c client) push(t *testing.T, ref name.Tag, size int64) v1.Image {
	t.Helper()
	image, err := random.Image(size, 2)
	noError(t, err)
	noError(t, remote.Write(ref, image, c.options...))
	return image
}

// pull pulls every layer and compares what came.
func (c client) pull(t *testing.T, ref name.Tag, want v1.Image) {
	t.Helper()
	noError(t, c.tryPull(ref, want))
}

func (c client) tryPull(ref name.Tag, want v1.Image) error {
	got, err := remote.Image(ref, c.options...)
	if err != nil {
		return err
	}
	gotDigest, err := got.Digest()
	if err != nil {
		return err
	}
	wantDigest, err := want.Digest()
	if err != nil {
		return err
	}
	if gotDigest != wantDigest {
		return fmt.Errorf("%s is %s, pushed was %s", ref, gotDigest, wantDigest)
	}
	return images.Whole(got)
}

func TestPushAndPullBehindTheEdge(t *testing.T) {
	ca := registryCA(t, 1)
	f := startFront(t, pairOf(t, ca))
	c := f.client(t, "ann", "secret", ca)
	image := c.push(t, tag(t, "team/app:v1"), 300_000)
	c.pull(t, tag(t, "team/app:v1"), image)

	index, err := random.Index(10_000, 2, 3)
	noError(t, err)
	noError(t, remote.WriteIndex(tag(t, "team/multi:v1"), index, c.options...))
	tags, err := remote.List(tag(t, "team/app:v1").Context(), c.options...)
	noError(t, err)
	if fmt.Sprint(tags) != "[v1]" {
		t.Errorf("tags %v", tags)
	}
}

// The negative control: without the right CA nothing goes, so that the other
// tests prove something.
func TestOnlyWithTheCA(t *testing.T) {
	ca := registryCA(t, 1)
	f := startFront(t, pairOf(t, ca))
	for what, trusted := range map[string][]certs.CA{"none": nil, "another": {registryCA(t, 1)}} {
		_, err := remote.Catalog(t.Context(), tag(t, "app:v1").Registry, f.client(t, "ann", "secret", trusted...).options...)
		if unknown := new(x509.UnknownAuthorityError); !errors.As(err, unknown) {
			t.Errorf("with %s: %v", what, err)
		}
	}
}

// refusedWith checks that err is an answer with this status.
func refusedWith(t *testing.T, err error, status int) {
	t.Helper()
	refusal := new(transport.Error)
	if !errors.As(err, &refusal) || refusal.StatusCode != status {
		t.Errorf("got %v, want status %d", err, status)
	}
}

func TestSignInBehindTheEdge(t *testing.T) {
	ca := registryCA(t, 1)
	f := startFront(t, pairOf(t, ca))
	ref := tag(t, "app:v1")
	ann := f.client(t, "ann", "secret", ca)
	image := ann.push(t, ref, 10_000)
	for user, password := range map[string]string{"": "", "ann": "wrong", "bob": "secret"} {
		_, err := remote.Image(ref, f.client(t, user, password, ca).options...)
		refusedWith(t, err, http.StatusUnauthorized)
	}
	_, err := f.users.Add("ann", "changed")
	noError(t, err)
	_, err = remote.Image(ref, ann.options...)
	refusedWith(t, err, http.StatusUnauthorized)
	ann = f.client(t, "ann", "changed", ca)
	ann.pull(t, ref, image)

	puller, err := remote.NewPuller(ann.options...) // keeps its connection
	noError(t, err)
	_, err = puller.Get(t.Context(), ref)
	noError(t, err)
	noError(t, f.users.Remove("ann"))
	_, err = puller.Get(t.Context(), ref)
	refusedWith(t, err, http.StatusUnauthorized)
}

func TestForgedForwardingBehindTheEdge(t *testing.T) {
	ca := registryCA(t, 1)
	f := startFront(t, pairOf(t, ca))
	c := f.client(t, "ann", "secret", ca)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+registryName+"/v2/app/blobs/uploads/", nil)
	noError(t, err)
	req.SetBasicAuth("ann", "secret")
	req.Header.Set("X-Forwarded-Host", "evil.test")
	req.Header.Set("X-Forwarded-Proto", "http")
	req.Header.Set("Forwarded", "host=evil.test;proto=http")
	resp, err := c.RoundTrip(req)
	noError(t, err)
	defer func() { _ = resp.Body.Close() }()
	location, err := resp.Location()
	noError(t, err)
	if location.Scheme != "https" || location.Host != registryName {
		t.Errorf("the upload goes on at %s", location)
	}
}

// bigBlob pushes one that no socket buffer holds (a sender's has 4 MiB at most),
// and begins to download it.
func bigBlob(t *testing.T, c client) (finish func()) {
	t.Helper()
	layer, err := random.Layer(12<<20, "application/vnd.oci.image.layer.v1.tar+gzip")
	noError(t, err)
	repository := tag(t, "big:v1").Context()
	noError(t, remote.WriteLayer(repository, layer, c.options...))
	digest, err := layer.Digest()
	noError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+registryName+"/v2/big/blobs/"+digest.String(), nil)
	noError(t, err)
	req.SetBasicAuth("ann", "secret")
	resp, err := c.RoundTrip(req)
	noError(t, err)
	hash := sha256.New()
	_, err = io.CopyN(hash, resp.Body, 1000)
	noError(t, err)
	return func() {
		t.Helper()
		_, err := io.Copy(hash, resp.Body)
		noError(t, errors.Join(err, resp.Body.Close()))
		if got := hex.EncodeToString(hash.Sum(nil)); got != digest.Hex {
			t.Errorf("downloaded %s, want %s", got, digest.Hex)
		}
	}
}

// A new CA is served in the middle of a download: it is not cut, and from then
// on hosts with the old CA, with the new one and with both pull and push.
func TestNewCertificatesUnderLoad(t *testing.T) {
	old, ca := registryCA(t, 1), registryCA(t, 2)
	f := startFront(t, pairOf(t, old))
	c := f.client(t, "ann", "secret", old)
	image := c.push(t, tag(t, "app:v1"), 10_000)
	finish := bigBlob(t, c)

	link, err := old.SignNext(ca.Cert)
	noError(t, err)
	served := pairOf(t, ca, link)
	noError(t, f.edge.Publish(served, nil))
	finish()
	for _, trusted := range [][]certs.CA{{old}, {ca}, {old, ca}} {
		c := f.client(t, "ann", "secret", trusted...)
		c.pull(t, tag(t, "app:v1"), image)
		c.push(t, tag(t, "app:v2"), 10_000)
	}

	if err := f.edge.Publish(pairOf(t, registryCA(t, 3), link), nil); err == nil {
		t.Error("a chain that does not hold together was published")
	}
	current, _ := f.edge.Serving()
	if !bytes.Equal(current[registryHost].Certificate[0], served[registryHost].Certificate[0]) {
		t.Error("a refused chain replaced the served one")
	}
	f.client(t, "ann", "secret", ca).pull(t, tag(t, "app:v1"), image)
}

func TestStopDrainsTheRegistry(t *testing.T) {
	ca := registryCA(t, 1)
	f := startFront(t, pairOf(t, ca))
	finish := bigBlob(t, f.client(t, "ann", "secret", ca))
	f.stop()
	for err := error(nil); err == nil; { // until no more connections are taken
		var conn net.Conn
		if conn, err = net.Dial("tcp", f.address); err == nil {
			_ = conn.Close()
		}
	}
	select {
	case <-f.ended:
		t.Fatal("the edge ended with a download in flight")
	default:
	}
	finish()
	<-f.ended
	noError(t, f.err)
}
