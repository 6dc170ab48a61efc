package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/server/registry"
)

// realm is a server, with a registry of its own.
type realm struct {
	t      *testing.T
	domain string
	cfg    server.Config
	admin  pb.AdminServiceClient
	run    *running
}

func newRealm(t *testing.T, domain string, aliases ...string) *realm {
	t.Helper()
	data := filepath.Join(t.TempDir(), "server")
	if _, err := server.Init(t.Context(), server.InitConfig{DataDir: data, Domain: domain, Aliases: aliases}); err != nil {
		t.Fatal(err)
	}
	r := &realm{t: t, domain: domain, cfg: server.Config{
		DataDir: data, RegistryListen: freeAddress(t), GRPCListen: freeAddress(t), HTTPListen: "off", GossipListen: "off",
		Advertise: "127.0.0.1", Tick: 500 * time.Millisecond, Engine: registry.Fixed{},
	}, admin: adminClient(t, data)}
	r.open()
	return r
}

func (r *realm) open() {
	r.t.Helper()
	r.run = begin(r.t, func(ctx context.Context) error { return server.Run(ctx, r.cfg) })
	eventually(r.t, r.domain+" is up", func() bool {
		_, err := r.admin.GetStatus(r.t.Context(), &pb.GetStatusRequest{})
		return err == nil
	})
}

func (r *realm) status() *pb.Status {
	r.t.Helper()
	s, err := r.admin.GetStatus(r.t.Context(), &pb.GetStatusRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s.GetStatus()
}

// trusted waits until the one host of this server is.
func (r *realm) trusted() {
	r.t.Helper()
	eventually(r.t, r.domain+" has a trusted host", func() bool {
		hosts := r.status().GetHosts()
		return len(hosts) == 1 && hosts[0].GetConnected() && hosts[0].GetState() == "trusted"
	})
}

// rotate waits until a whole rotation is over.
func (r *realm) rotate() {
	r.t.Helper()
	before := r.status().GetGeneration()
	if _, err := r.admin.RotateCA(r.t.Context(), &pb.RotateCARequest{}); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, r.domain+" has rotated", func() bool {
		s := r.status()
		return s.GetRotation().GetPhase() == "idle" && s.GetGeneration() > before+1
	})
}

// machine is a host of several realms.
type machine struct {
	t   *testing.T
	cfg agent.Config
	run *running
}

func newMachine(t *testing.T) *machine {
	dir := t.TempDir()
	return &machine{t: t, cfg: agent.Config{
		DataDir: filepath.Join(dir, "agent"), DockerCertsDir: filepath.Join(dir, "certs.d"), Name: "web-1", GossipListen: "off",
	}}
}

// joining is the configuration that joins r.
func (m *machine) joining(r *realm) agent.Config {
	m.t.Helper()
	token, err := r.admin.CreateToken(m.t.Context(), &pb.CreateTokenRequest{})
	if err != nil {
		m.t.Fatal(err)
	}
	cfg := m.cfg
	cfg.Server, cfg.Token = r.cfg.GRPCListen, token.GetToken()
	return cfg
}

func (m *machine) join(realms ...*realm) {
	m.t.Helper()
	for _, r := range realms {
		result, err := agent.Join(m.t.Context(), m.joining(r))
		if err != nil || result.Domain != r.domain || result.Already {
			m.t.Fatalf("join %s: %+v, %v", r.domain, result, err)
		}
	}
}

func (m *machine) start() {
	m.run = begin(m.t, func(ctx context.Context) error { return agent.Run(ctx, m.cfg) })
}

func (m *machine) file(r *realm) string {
	return filepath.Join(m.cfg.DockerCertsDir, r.domain, "ca.crt")
}

// pulls says whether a client of this machine, with the roots of its certs.d, reaches
// the registry.
func (m *machine) pulls(r *realm) bool {
	m.t.Helper()
	roots := x509.NewCertPool()
	if pem, err := os.ReadFile(m.file(r)); err == nil {
		roots.AppendCertsFromPEM(pem)
	}
	host, _, _ := strings.Cut(r.domain, ":")
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: host}}).DialContext(m.t.Context(), "tcp", r.cfg.RegistryListen)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func (m *machine) status() []agent.Status {
	m.t.Helper()
	all, err := agent.ReadAll(m.cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

// of is the status of one registry.
func (m *machine) of(r *realm) agent.Status {
	m.t.Helper()
	all := m.status()
	if i := slices.IndexFunc(all, func(s agent.Status) bool { return s.Domain == r.domain }); i >= 0 {
		return all[i]
	}
	return agent.Status{}
}
