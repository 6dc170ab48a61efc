package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// site is a registry that answers, and a host's files in a directory.
type site struct {
	Config
	t      *testing.T
	name   certs.Name
	ca     certs.CA
	server *httptest.Server
	status int         // of /v2/
	clock  time.Time   // of the registry's Date; zero: now
	next   bool        // a future chain is offered
	agents bool        // it is the port for agents
	skopeo atomic.Bool // asked for something
}

// newSite makes a healthy one: its CA is installed for Docker.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, status: http.StatusUnauthorized}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.UserAgent(), "skopeo") {
			s.skopeo.Store(true)
		}
		if !s.clock.IsZero() {
			w.Header().Set("Date", s.clock.UTC().Format(http.TimeFormat))
		}
		w.WriteHeader(s.status)
	}))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that are refused on purpose
	_, port, err := net.SplitHostPort(s.server.Listener.Addr().String())
	must(t, err)
	s.name, err = certs.ParseName("registry.test:"+port, certs.DefaultPort)
	must(t, err)
	s.ca = newCA(t, s.name)
	s.server.TLS = &tls.Config{GetConfigForClient: s.serve}
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.join()
	return s
}

// serve is as strict about protocols as the edge is.
func (s *site) serve(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	cfg := &tls.Config{Certificates: []tls.Certificate{s.leaf(s.ca)}, NextProtos: []string{"http/1.1"}}
	if s.next {
		cfg.NextProtos = append(cfg.NextProtos, nextProtocol)
	}
	return cfg, nil
}

func (s *site) leaf(ca certs.CA) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s.t, err)
	now := time.Now()
	if s.agents {
		raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(1), URIs: []*url.URL{{Scheme: "trustcast", Host: "fleet", Path: "/server"}},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		}, s.ca.Cert, &key.PublicKey, ca.Key)
		must(s.t, err)
		return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
	}
	cert, err := ca.SignLeaf(s.name.Host, &key.PublicKey, now.Add(-time.Hour), now.Add(time.Hour))
	must(s.t, err)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func newCA(t *testing.T, n certs.Name) certs.CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca, err := certs.NewCA(certs.CATemplate{Number: 1, Names: []certs.Name{n}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}, key)
	must(t, err)
	return ca
}

// join makes this a host that has joined, with a root of its own.
func (s *site) join() {
	root := s.t.TempDir()
	s.Config = Config{Root: root, Getenv: func(string) string { return "" }}
	address := s.server.Listener.Addr().String()
	s.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	s.Ping = func(context.Context, string, string, [][]byte) error { return nil }
	s.Lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
	}
	s.Places = []Place{{Runtime: "docker", Dir: filepath.Join(root, "etc/docker/certs.d")}}
	data := filepath.Join(root, "var/lib/trustcast-agent")
	must(s.t, os.MkdirAll(data, 0o700))
	s.Registry = Registry{
		Names: []certs.Name{s.name}, Joined: true, Server: "registry.test:7443", Peers: []string{"registry.test:7947"}, GossipKeys: [][]byte{make([]byte, 32)},
		Bundle: certs.Bundle{Generation: 3, Roots: []*x509.Certificate{s.ca.Cert}},
		Files:  []string{filepath.Join(s.dir(), "ca.crt")},
		Agent: Agent{
			DataDir: data, Running: true, Connected: true, Gossip: "ok",
			IdentityDue: time.Now().Add(time.Hour), IdentityEnds: time.Now().Add(2 * time.Hour),
		},
	}
	s.write("etc/docker/certs.d/"+s.name.String()+"/ca.crt", string(s.Registry.Bundle.PEM()))
}

// rename gives the registry another host, for which there is a CA again.
func (s *site) rename(host string) {
	s.name.Host = host
	s.ca = newCA(s.t, s.name)
	s.join()
}

// dir is Docker's directory for the registry.
func (s *site) dir() string { return filepath.Join(s.Places[0].Dir, s.name.String()) }

// write writes a file of the host; the path is below its root.
func (s *site) write(path, content string) {
	s.t.Helper()
	path = filepath.Join(s.Root, path)
	must(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(s.t, os.WriteFile(path, []byte(content), 0o644))
}

// process makes the host run a program.
func (s *site) process(args, env string) {
	s.t.Helper()
	s.write("proc/42/cmdline", strings.ReplaceAll(args, " ", "\x00")+"\x00")
	s.write("proc/42/environ", strings.ReplaceAll(env, " ", "\x00")+"\x00")
}

func (s *site) examine() findings {
	s.t.Helper()
	return Examine(s.t.Context(), s.Config)
}

// findings can be asked.
type findings []Check

func (f findings) String() string {
	var b strings.Builder
	for _, c := range f {
		fmt.Fprintf(&b, "%s %s [%s] %s → %s\n", c.State, c.ID, c.Subject, c.Text, c.Fix)
	}
	return b.String()
}

// has says whether a check of this ID has this state and text.
func (f findings) has(id string, state State, text string) bool {
	return slices.ContainsFunc(f, func(c Check) bool { return c.ID == id && c.State == state && strings.Contains(c.Text, text) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var errAway = errors.New("away")

// await waits for a condition, for as long as a busy machine may need.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
