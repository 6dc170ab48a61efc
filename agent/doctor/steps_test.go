package doctor

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSteps: what to do is something that can be done.
func TestSteps(t *testing.T) {
	unresolved := func(context.Context, string, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Name: "registry.test", IsNotFound: true}
	}
	for _, c := range []struct {
		name    string
		make    func(s *site)
		id, fix string
	}{
		{"no name, with an address", func(s *site) { s.Lookup, s.Registry.Fallback = unresolved, "192.0.2.7:5000" }, "network.name", "echo '192.0.2.7 registry.test' >> /etc/hosts   # or add it to DNS"},
		{"no name, with another name", func(s *site) { s.Lookup, s.Registry.Fallback = unresolved, "other.test:5000" }, "network.name", "add registry.test to DNS or to /etc/hosts"},
		{"no name, with itself", func(s *site) { s.Lookup, s.Registry.Fallback = unresolved, s.name.String() }, "network.name", "add registry.test to DNS or to /etc/hosts"},
		{"a server without a name", func(s *site) {
			s.Registry.Peers = nil
			s.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, &net.DNSError{IsNotFound: true} }
		}, "network.server", "add registry.test to DNS or to /etc/hosts"},
		{"a server that is away", func(s *site) {
			s.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errAway }
		}, "network.server", "is the server running, and does a firewall let TCP to it through?"},
		{"the port for agents", func(s *site) { s.agents = true }, "network.registry", "trustcast-agent doctor registry.test:5000"},
		{"gossip's port taken", func(s *site) {
			s.Registry.Agent.Gossip, s.Registry.Agent.GossipProblem, s.Registry.Agent.GossipListen = "off", "taken", ":7947"
		}, "host.gossip", "TRUSTCAST_GOSSIP_LISTEN=:7948 in /etc/default/trustcast-agent, or --gossip-listen :7948; then restart the agent"},
		{"no agent", func(s *site) { s.Registry.Agent.Running = false }, "host.agent", "trustcast-agent run"},
		{"no agent, under systemd", func(s *site) {
			s.Registry.Agent.Running = false
			s.write("usr/lib/systemd/system/trustcast-agent.service", "")
		}, "host.agent", "systemctl enable --now trustcast-agent   # why it ended: journalctl -u trustcast-agent"},
		{"another's CA in our file", func(s *site) {
			s.write("etc/docker/certs.d/"+s.name.String()+"/ca.crt", string(s.Registry.Bundle.PEM())+"more")
		}, "files.bundle", mend},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c.make(s)
			f := s.examine()
			at := slices.IndexFunc(f, func(f Check) bool { return f.ID == c.id && f.State != OK })
			if at < 0 || f[at].Fix != c.fix {
				t.Errorf("want %s → %s:\n%v", c.id, c.fix, f)
			}
		})
	}
}

// TestSaidOnce: two runtimes that share a directory have its ailments in common.
func TestSaidOnce(t *testing.T) {
	s := newSite(t)
	s.Places = append(s.Places, Place{Runtime: "containers", Dir: filepath.Join(s.Root, "etc/containers/certs.d"), After: s.Places[0].Dir})
	s.write("etc/docker/certs.d/"+s.name.String()+"/x.crt", "garbage")
	f := s.examine()
	if n := strings.Count(f.String(), "files.garbage"); n != 1 || strings.Count(f.String(), "files.directory") != 2 {
		t.Errorf("the garbage is named %d times:\n%v", n, f)
	}
	must(t, os.RemoveAll(s.dir()))
	s.Home = filepath.Join(s.Root, "home/me")
	if f = s.examine(); !f.has("files.directory", Warn, "its CA belongs into "+filepath.Join(s.Root, "etc/containers/certs.d", s.name.String())) || strings.Contains(f.String(), "home/me") {
		t.Errorf("where the agent writes is not named, or a directory that would hide it:\n%v", f)
	}
}
