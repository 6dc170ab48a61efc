package contract

import (
	"crypto/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/test/images"
)

// network is where the registry's own peers are: loopback for the embedded engine,
// one of Docker's for the other.
type network struct {
	t *testing.T
	// name in Docker; empty: loopback.
	name string
	// host is where this process listens for the registry.
	host string
}

// newNetwork makes one for an engine; it is gone after the test.
func newNetwork(t *testing.T, engine string) network {
	t.Helper()
	n := network{t: t, host: "127.0.0.1"}
	if engine != "docker" {
		return n
	}
	images.Docker(t)
	n.name = "tcc-" + strings.ToLower(rand.Text()[:10])
	docker(t, "network", "create", n.name)
	t.Cleanup(func() { docker(t, "network", "rm", n.name) })
	n.host = docker(t, "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", n.name)
	return n
}

// with gives a registry these parameters, and the network.
func (n network) with(section string) func(*server.InitConfig, *server.Config) {
	return func(_ *server.InitConfig, cfg *server.Config) {
		cfg.Registry.Section, cfg.Network = []byte(section), n.name
	}
}

// serve runs a peer in this process, and returns its URL.
func (n network) serve(h http.Handler) *httptest.Server {
	n.t.Helper()
	lis, err := net.Listen("tcp", net.JoinHostPort(n.host, "0"))
	must(n.t, err)
	s := httptest.NewUnstartedServer(h)
	must(n.t, s.Listener.Close())
	s.Listener = lis
	s.Start()
	n.t.Cleanup(s.Close)
	return s
}

// docker runs the client, and returns what it printed.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// keepsSecret: what the registry was told in confidence is neither in the server's log
// nor in what Docker tells of containers.
func (s *site) keepsSecret(secrets ...string) {
	s.t.Helper()
	told := map[string]string{"the server's log": s.logs.String()}
	if s.engine == "docker" {
		containers := s.containers()
		if len(containers) == 0 {
			s.t.Fatal("there are no containers to look at")
		}
		told["docker inspect"] = docker(s.t, append([]string{"inspect"}, containers...)...)
	}
	for where, text := range told {
		for _, secret := range secrets {
			if at := strings.Index(text, secret); at >= 0 {
				s.t.Errorf("%s has %s: %.300s", where, secret, text[max(0, at-100):])
			}
		}
	}
}
