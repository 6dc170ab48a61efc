package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/server/registry"
)

// street is a server and machines that reach it from addresses of their own.
type street struct {
	t     *testing.T
	cfg   server.Config
	admin pb.AdminServiceClient
}

func newStreet(t *testing.T) *street {
	t.Helper()
	data := filepath.Join(t.TempDir(), "server")
	if _, err := server.Init(t.Context(), server.InitConfig{DataDir: data, Domain: "registry.test"}); err != nil {
		t.Fatal(err)
	}
	return &street{t: t, cfg: server.Config{
		DataDir: data, RegistryListen: freeAddress(t), GRPCListen: freeAddress(t), HTTPListen: freeAddress(t), GossipListen: "off",
		Advertise: "127.0.0.1", Tick: 500 * time.Millisecond, Engine: registry.Fixed{},
	}, admin: adminClient(t, data)}
}

// open runs the server with the user ann.
func (s *street) open() *running {
	s.t.Helper()
	srv := begin(s.t, func(ctx context.Context) error { return server.Run(ctx, s.cfg) })
	eventually(s.t, "the server is up", func() bool {
		_, err := s.admin.AddUser(s.t.Context(), &pb.AddUserRequest{Name: "ann", Password: "secret secret"})
		return err == nil
	})
	return srv
}

func dialFrom(address string) func(context.Context, string, string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return d.DialContext
}

// join runs an agent until the test ends or it is ended.
func (s *street) join(name, address string) (cfg agent.Config, run *running) {
	s.t.Helper()
	token, err := s.admin.CreateToken(s.t.Context(), &pb.CreateTokenRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	cfg = agent.Config{
		DataDir: filepath.Join(dir, "agent"), DockerCertsDir: filepath.Join(dir, "certs.d"), Server: s.cfg.GRPCListen,
		Token: token.GetToken(), Name: name, GossipListen: "off", Dial: dialFrom(address),
	}
	return cfg, s.host(cfg)
}

func (s *street) host(cfg agent.Config) *running {
	s.t.Helper()
	run := begin(s.t, func(ctx context.Context) error { return agent.Run(ctx, cfg) })
	eventually(s.t, cfg.Name+" is trusted", func() bool {
		for _, h := range s.status().GetHosts() {
			if h.GetName() == cfg.Name {
				return h.GetConnected() && h.GetState() == "trusted"
			}
		}
		return false
	})
	return run
}

// end stops an agent and waits until the server knows.
func (s *street) end(run *running, hosts int) {
	s.t.Helper()
	run.end(s.t)
	eventually(s.t, fmt.Sprintf("%d hosts are connected", hosts), func() bool {
		n := 0
		for _, h := range s.status().GetHosts() {
			if h.GetConnected() {
				n++
			}
		}
		return n == hosts
	})
}

func (s *street) status() *pb.Status {
	s.t.Helper()
	r, err := s.admin.GetStatus(s.t.Context(), &pb.GetStatusRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetStatus()
}

// pull asks the registry for something, as a client that trusts its CA, or not.
func (s *street) pull(address string, trusts bool) {
	s.t.Helper()
	roots := x509.NewCertPool()
	if ca, err := os.ReadFile(filepath.Join(s.cfg.DataDir, "certs", "ca.crt")); err != nil || trusts && !roots.AppendCertsFromPEM(ca) {
		s.t.Fatal("no CA", err)
	}
	transport := &http.Transport{DialContext: dialFrom(address), TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "registry.test"}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "https://"+s.cfg.RegistryListen+"/v2/", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth("ann", "secret secret")
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if (err == nil) != trusts {
		s.t.Fatalf("a pull from %s: %v", address, err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}
}

// strangers waits until exactly these are listed, as "address requests/refusals"
// in the order of the last seen, and by the metric too.
func (s *street) strangers(want ...string) {
	s.t.Helper()
	var got []string
	defer func() {
		if s.t.Failed() {
			s.t.Logf("strangers are %q, want %q", got, want)
		}
	}()
	eventually(s.t, fmt.Sprintf("strangers are %q", want), func() bool {
		got = nil
		for _, x := range s.status().GetStrangers() {
			got = append(got, fmt.Sprintf("%s %d/%d", x.GetAddress(), x.GetRequests(), x.GetRefusals()))
		}
		return strings.Join(got, ",") == strings.Join(want, ",")
	})
	eventually(s.t, "the metric agrees", func() bool {
		resp, err := http.Get("http://" + s.cfg.HTTPListen + "/metrics") //nolint:noctx // of this test's server
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(string(text), fmt.Sprintf("\ntrustcast_strangers %d\n", len(want)))
	})
}

// TestStrangers: who pulls, or refuses the certificate, and is no host is
// listed; the address of an enrolled host is not, for as long as it is one.
func TestStrangers(t *testing.T) {
	s := newStreet(t)
	srv := s.open()
	s.strangers()
	s.pull("127.0.0.2", true)
	s.strangers("127.0.0.2 1/0") // before it joins it is one
	web1, run1 := s.join("web-1", "127.0.0.2")
	s.pull("127.0.0.2", true)
	s.pull("127.0.0.3", true)
	s.pull("127.0.0.3", true)
	s.pull("127.0.0.4", false)
	s.strangers("127.0.0.4 0/1", "127.0.0.3 2/0")

	// This machine's own addresses: nobody, then a host of it, explains them.
	s.pull("127.0.0.1", true)
	s.strangers("127.0.0.1 1/0", "127.0.0.4 0/1", "127.0.0.3 2/0")
	_, run2 := s.join("web-2", "127.0.0.1")
	s.pull("127.0.0.1", true)
	s.strangers("127.0.0.4 0/1", "127.0.0.3 2/0")

	// A restart forgets strangers, but not where a host was that is away.
	s.end(run1, 1)
	s.end(run2, 0)
	srv.end(t)
	s.open()
	s.pull("127.0.0.4", false)
	s.pull("127.0.0.2", true)
	s.strangers("127.0.0.4 0/1")

	// The host moves: what it did at its old address is forgotten, what
	// another machine does there afterwards counts.
	web1.Dial = dialFrom("127.0.0.2")
	run1 = s.host(web1)
	s.end(run1, 0)
	web1.Dial = dialFrom("127.0.0.5")
	s.host(web1)
	s.strangers("127.0.0.4 0/1")
	s.pull("127.0.0.2", true)
	s.pull("127.0.0.5", true)
	s.strangers("127.0.0.2 1/0", "127.0.0.4 0/1")

	// A removed host is one like all others.
	if _, err := s.admin.RemoveHost(t.Context(), &pb.RemoveHostRequest{Host: "web-1"}); err != nil {
		t.Fatal(err)
	}
	s.pull("127.0.0.5", true)
	s.strangers("127.0.0.5 1/0", "127.0.0.2 1/0", "127.0.0.4 0/1")
}
