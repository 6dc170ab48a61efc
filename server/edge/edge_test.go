package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/test/bufconn"

	"github.com/trustcast/trustcast/certs"
)

const (
	domain = "registry.test"
	alias  = "mirror.test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func newCA(t testing.TB, number uint64) certs.CA {
	t.Helper()
	now := time.Now()
	ca, err := certs.NewCA(certs.CATemplate{
		Number: number, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour),
		Names: []certs.Name{{Host: domain, Port: 5000}, {Host: alias, Port: 5000}},
	}, newKey(t))
	must(t, err)
	return ca
}

func follow(t testing.TB, old, next certs.CA) *x509.Certificate {
	t.Helper()
	link, err := old.SignNext(next.Cert)
	must(t, err)
	return link
}

// pair is a leaf for host, valid for the given time from an hour ago.
func pair(t testing.TB, ca certs.CA, host string, life time.Duration, links ...*x509.Certificate) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	from := time.Now().Add(-time.Hour)
	leaf, err := ca.SignLeaf(host, key.Public(), from, from.Add(life))
	must(t, err)
	p := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
	for _, link := range links {
		p.Certificate = append(p.Certificate, link.Raw)
	}
	return p
}

// pairs are good ones for the domain and the alias.
func pairs(t testing.TB, ca certs.CA, links ...*x509.Certificate) map[string]*tls.Certificate {
	t.Helper()
	return map[string]*tls.Certificate{
		domain: pair(t, ca, domain, 24*time.Hour, links...),
		alias:  pair(t, ca, alias, 24*time.Hour, links...),
	}
}

func pool(cas ...certs.CA) *x509.CertPool {
	p := x509.NewCertPool()
	for _, ca := range cas {
		p.AddCert(ca.Cert)
	}
	return p
}

// people is a list of users that changes while the edge serves.
type people struct {
	mu     sync.Mutex
	hashes map[string][]byte
	dummy  []byte
}

func newPeople(t testing.TB, passwords map[string]string) *people {
	t.Helper()
	p := &people{hashes: map[string][]byte{}, dummy: hashOf(t, rand.Text())}
	for name, password := range passwords {
		p.set(name, hashOf(t, password))
	}
	return p
}

func hashOf(t testing.TB, password string) []byte {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	must(t, err)
	return hash
}

func (p *people) set(name string, hash []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hashes[name] = hash
}

func (p *people) remove(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.hashes, name)
}

func (p *people) hash(name string) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	hash, ok := p.hashes[name]
	return hash, ok
}

// front is an edge that runs.
type front struct {
	*Edge
	ca     certs.CA
	people *people
	lis    net.Listener
	dial   func(context.Context) (net.Conn, error)
	stop   context.CancelFunc
	ended  chan struct{} // closed when Run has returned err
	err    error
}

// newFront runs an edge with the user ann before the engine.
func newFront(t testing.TB, engine http.HandlerFunc, change ...func(*Config)) *front {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return run(t, lis, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", lis.Addr().String())
	}, engine, change...)
}

// newSimulated is newFront in simulated time. No connection carries a second
// request there, since bufconn's timeouts count as fatal for TLS.
func newSimulated(t testing.TB, engine http.HandlerFunc) *front {
	t.Helper()
	lis := bufconn.Listen(64 << 10)
	return run(t, lis, lis.DialContext, engine)
}

func run(t testing.TB, lis net.Listener, dial func(context.Context) (net.Conn, error), engine http.HandlerFunc, change ...func(*Config)) *front {
	t.Helper()
	f := &front{ca: newCA(t, 1), people: newPeople(t, map[string]string{"ann": "secret"}), lis: lis, dial: dial, ended: make(chan struct{})}
	cfg := Config{Domain: domain, Hash: f.people.hash, DummyHash: func() []byte { return f.people.dummy }}
	for _, c := range change {
		c(&cfg)
	}
	f.Edge = New(cfg)
	f.Serve([]Endpoint{{ID: "embedded-1", Handler: engine}})
	must(t, f.Publish(pairs(t, f.ca), nil))
	ctx, stop := context.WithCancel(t.Context())
	f.stop = stop
	go func() {
		defer close(f.ended)
		f.err = f.Run(ctx, f.lis)
	}()
	t.Cleanup(func() { f.close(t) })
	return f
}

// close stops the edge and waits for its end.
func (f *front) close(t testing.TB) {
	t.Helper()
	f.stop()
	<-f.ended
	must(t, f.err)
}

// handshake returns an open connection.
func (f *front) handshake(t testing.TB, cfg *tls.Config) (*tls.Conn, error) {
	t.Helper()
	raw, err := f.dial(t.Context())
	must(t, err)
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		_ = raw.Close()
		return nil, err
	}
	t.Cleanup(func() { _ = raw.Close() })
	return conn, nil
}

// leaf returns the certificate that a client gets which asks for name.
func (f *front) leaf(t testing.TB, name string, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	conn, err := f.handshake(t, &tls.Config{ServerName: name, RootCAs: roots})
	must(t, err)
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0]
}

// client keeps its connections until the test ends.
func (f *front) client(t testing.TB, cas ...certs.CA) *http.Client {
	t.Helper()
	if len(cas) == 0 {
		cas = []certs.CA{f.ca}
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return f.dial(ctx) }
	transport := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: pool(cas...)}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// answer is a response that was read to its end.
type answer struct {
	*http.Response
	body string
}

func request(t testing.TB, method, path, user, password string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+domain+path, body)
	must(t, err)
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	return req
}

func do(t testing.TB, client *http.Client, req *http.Request) answer {
	t.Helper()
	resp, err := client.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return answer{resp, string(body)}
}

func get(t testing.TB, client *http.Client, path, user, password string) answer {
	t.Helper()
	return do(t, client, request(t, http.MethodGet, path, user, password, nil))
}

// ok is an engine that is content.
func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }
