package doctor

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// TestHealthy is the control: on a host where all is well everything is ok.
func TestHealthy(t *testing.T) {
	f := newSite(t).examine()
	if Verdict(f) != OK {
		t.Errorf("verdict %s:\n%v", Verdict(f), f)
	}
	for _, id := range []string{"host.joined", "host.agent", "host.identity", "network.name", "network.registry", "network.clock", "network.server", "network.gossip", "files.directory", "files.bundle", "trust.chain", "trust.next"} {
		if !f.has(id, OK, "") {
			t.Errorf("nothing says %s:\n%v", id, f)
		}
	}
}

// TestAilments makes one thing wrong at a time.
func TestAilments(t *testing.T) {
	for _, c := range []struct {
		name  string
		make  func(s *site)
		id    string
		state State
		text  string
	}{
		{"a directory x.crt", func(s *site) { must(s.t, os.Mkdir(filepath.Join(s.dir(), "x.crt"), 0o755)) }, "files.folder", Fail, "is a directory"},
		{"a dangling link", func(s *site) { must(s.t, os.Symlink("/nowhere", filepath.Join(s.dir(), "x.crt"))) }, "files.dangling", Fail, "link to nothing"},
		{"a pipe", func(s *site) { must(s.t, syscall.Mkfifo(filepath.Join(s.dir(), "x.crt"), 0o644)) }, "files.special", Fail, "no regular file"},
		{"a pipe as a pair", func(s *site) {
			must(s.t, syscall.Mkfifo(filepath.Join(s.dir(), "x.cert"), 0o644))
			must(s.t, syscall.Mkfifo(filepath.Join(s.dir(), "x.key"), 0o644))
		}, "files.pair", Fail, "no regular file"},
		{"a certificate without its key", func(s *site) { s.write("etc/docker/certs.d/"+s.name.String()+"/x.cert", "") }, "files.pair", Fail, "has no x.key"},
		{"a key without its certificate", func(s *site) { s.write("etc/docker/certs.d/"+s.name.String()+"/x.key", "") }, "files.pair", Fail, "has no x.cert"},
		{"garbage", func(s *site) { s.write("etc/docker/certs.d/"+s.name.String()+"/x.crt", "garbage") }, "files.garbage", Warn, "holds no certificate"},
		{"an empty ca.crt", func(s *site) { s.write("etc/docker/certs.d/"+s.name.String()+"/ca.crt", "") }, "trust.chain", Fail, "not in"},
		{"the wrong spelling", func(s *site) {
			must(s.t, os.Rename(s.dir(), filepath.Join(s.Places[0].Dir, s.name.Host)))
		}, "files.spelling", Warn, "nothing reads"},
		{"an old CA", func(s *site) {
			s.write("etc/docker/certs.d/"+s.name.String()+"/old.crt", string(certs.EncodePEM(newCA(s.t, s.name).Cert)))
		}, "files.foreign", Warn, "does not come from the server"},
		{"an insecure registry", func(s *site) {
			s.write("etc/docker/daemon.json", `{"insecure-registries": ["`+s.name.String()+`"]}`)
		}, "trust.insecure", Warn, "daemon.json"},
		{"an insecure range on the command line", func(s *site) { s.process("/usr/bin/dockerd --insecure-registry 192.0.2.0/24", "") }, "trust.insecure", Warn, "command line"},
		{"a broken daemon.json", func(s *site) { s.write("etc/docker/daemon.json", `{`) }, "engine.config", Warn, "will not start"},
		{"a loopback address", func(s *site) {
			s.Lookup = func(context.Context, string, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("127.0.1.1")}, nil
			}
		}, "trust.loopback", Warn, "verifies nothing"},
		{"no name", func(s *site) {
			s.Registry.Fallback = "192.0.2.7:5000"
			s.Lookup = func(context.Context, string, string) ([]netip.Addr, error) {
				return nil, &net.DNSError{Name: "registry.test", IsNotFound: true}
			}
		}, "network.name", Fail, "answers at 192.0.2.7:5000"},
		{"the port for agents", func(s *site) { s.agents = true }, "network.registry", Fail, "is the server's port for agents; images use the registry's, usually registry.test:5000"},
		{"no server, nor a name of it", func(s *site) {
			dial := s.Dial
			s.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == s.Registry.Server {
					return nil, &net.DNSError{Name: "registry.test", IsNotFound: true}
				}
				return dial(ctx, network, address)
			}
		}, "network.server", Warn, "no rotation is followed"},
		{"nobody there", func(s *site) {
			s.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errAway }
		}, "network.registry", Fail, "away"},
		{"a registry out of order", func(s *site) { s.status = http.StatusServiceUnavailable }, "network.registry", Fail, "503"},
		{"no registry", func(s *site) { s.status = http.StatusNotFound }, "network.registry", Fail, "no registry"},
		{"a clock that is behind", func(s *site) { s.clock = time.Now().Add(time.Hour) }, "network.clock", Warn, "behind"},
		{"a clock years ahead", func(s *site) { s.Now = func() time.Time { return time.Now().Add(20000 * time.Hour) } }, "trust.chain", Fail, "ended"},
		{"a clock years behind", func(s *site) { s.Now = func() time.Time { return time.Now().Add(-20000 * time.Hour) } }, "trust.chain", Fail, "begins"},
		{"an impostor", func(s *site) { s.ca = newCA(s.t, s.name) }, "trust.chain", Fail, "not of this registry"},
		{"a future chain of somebody else", func(s *site) { s.next, s.ca = true, newCA(s.t, s.name) }, "trust.next", Warn, "does not verify"},
		{"a future chain", func(s *site) { s.next = true }, "trust.next", OK, "verifies"},
		{"no agent", func(s *site) { s.Registry.Agent.Running = false }, "host.agent", Warn, "does not run"},
		{"no stream", func(s *site) { s.Registry.Agent.Connected = false }, "host.agent", Warn, "no connection"},
		{"nothing heard", func(s *site) {
			s.Registry.Agent.Connected, s.Registry.Agent.LastSync = false, time.Now().Add(-50*time.Hour)
		}, "host.sync", Warn, "last heard"},
		{"gossip's port taken", func(s *site) {
			s.Registry.Agent.Gossip, s.Registry.Agent.GossipProblem, s.Registry.Agent.GossipListen = "off", ":7947 is taken by another program", ":7947"
		}, "host.gossip", Warn, "gossip is off: :7947 is taken"},
		{"our file with more in it", func(s *site) {
			s.write("etc/docker/certs.d/"+s.name.String()+"/ca.crt", string(s.Registry.Bundle.PEM())+"more")
		}, "files.bundle", Warn, "is not as the agent wrote it: file holds something that is no PEM certificate"},
		{"our file with another CA in it", func(s *site) {
			s.write("etc/docker/certs.d/"+s.name.String()+"/ca.crt", string(s.Registry.Bundle.PEM())+string(certs.EncodePEM(newCA(s.t, s.name).Cert)))
		}, "files.bundle", Warn, "is not as the agent wrote it: it holds other certificates"},
		{"a user who may not look", func(s *site) {
			s.Registry = Registry{Names: s.Registry.Names, Unseen: fs.ErrPermission}
		}, "host.joined", Warn, "cannot be seen by this user"},
		{"another fleet", func(s *site) {
			s.Registry = Registry{Names: s.Registry.Names, Others: []string{"other.test:5000"}}
		}, "host.joined", Warn, "(it has joined other.test:5000)"},
		{"no gossip", func(s *site) { s.Registry.Agent.Gossip = "unreachable" }, "host.gossip", Warn, "hears nobody"},
		{"an ended identity", func(s *site) { s.Registry.Agent.IdentityEnds = time.Now().Add(-time.Hour) }, "host.identity", Warn, "ended"},
		{"a renewal overdue", func(s *site) { s.Registry.Agent.IdentityDue = time.Now().Add(-48 * time.Hour) }, "host.identity", Warn, "should have been renewed"},
		{"an open identity", func(s *site) { s.write("var/lib/trustcast-agent/identity.json", "") }, "host.private", Warn, "open to others"},
		{"not joined", func(s *site) { s.Registry = Registry{Names: s.Registry.Names} }, "host.joined", Warn, "not joined"},
		{"a runtime that wants a restart", func(s *site) { s.Manual = []Manual{{"k3s", "reads it once", "restart it"}} }, "restart.manual", Warn, "reads it once"},
		{"a hosts.toml without a CA", func(s *site) {
			s.write("etc/docker/daemon.json", `{"features": {"containerd-snapshotter": true}}`)
			s.write("etc/docker/certs.d/"+s.name.String()+"/hosts.toml", "[host.\"https://x\"]\n")
		}, "trust.chain", Fail, "not in"},
		{"a hosts.toml that skips", func(s *site) {
			s.write("etc/docker/daemon.json", `{"features": {"containerd-snapshotter": true}}`)
			s.write("etc/docker/certs.d/"+s.name.String()+"/hosts.toml", "[host.\"https://x\"]\n  skip_verify = true\n")
		}, "trust.insecure", Warn, "skip_verify"},
		{"a hosts.toml without a host", func(s *site) {
			s.write("etc/docker/daemon.json", `{"features": {"containerd-snapshotter": true}}`)
			s.write("etc/docker/certs.d/"+s.name.String()+"/hosts.toml", "server = \"x\"\n")
		}, "files.hosts", Warn, "no [host] table"},
		{"garbage for containerd's store", func(s *site) {
			s.write("etc/docker/daemon.json", `{"features": {"containerd-snapshotter": true}}`)
			s.write("etc/docker/certs.d/"+s.name.String()+"/x.crt", "garbage")
		}, "files.garbage", Fail, "holds no certificate"},
		{"a stale builder", func(s *site) {
			s.write("home/alice/.docker/buildx/instances/old", `{"Name":"old","Driver":"docker-container"}`)
			must(s.t, os.Chtimes(filepath.Join(s.Root, "home/alice/.docker/buildx/instances/old"), time.Unix(1, 0), time.Unix(1, 0)))
		}, "restart.buildx", Warn, `"old"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c.make(s)
			if f := s.examine(); !f.has(c.id, c.state, c.text) || c.state == Fail != (Verdict(f) == Fail) && c.id != "files.spelling" && c.id != "trust.next" {
				t.Errorf("want %s %s %q, verdict %s:\n%v", c.state, c.id, c.text, Verdict(f), f)
			}
		})
	}
}

// TestUsed: which directory each runtime uses, of several that are there.
func TestUsed(t *testing.T) {
	for _, c := range []struct {
		name    string
		runtime string
		there   []string // NAME stands for host:port, UNDER for host_port_; the CA is in the first
		feature bool     // containerd's image store
		used    string   // "" when the pull works with ours
	}{
		{"Docker alone", "docker", []string{"docker/NAME"}, false, ""},
		{"Docker never looks into others", "docker", []string{"docker/NAME", "docker/UNDER", "docker/_default"}, false, ""},
		{"Engine 29 takes host_port_ first", "docker", []string{"docker/NAME", "docker/UNDER"}, true, "docker/UNDER"},
		{"Engine 29 takes host:port before _default", "docker", []string{"docker/NAME", "docker/_default"}, true, ""},
		{"podman", "containers", []string{"containers/NAME", "docker/NAME"}, false, ""},
		{"an empty directory hides Docker's", "containers", []string{"docker/NAME", "containers/NAME"}, false, "containers/NAME"},
		{"a user's directory comes first", "containers", []string{"containers/NAME", "home/NAME"}, false, "home/NAME"},
		{"podman falls back to Docker's", "containers", []string{"docker/NAME"}, false, ""},
		{"containerd takes host_port_ first", "containerd", []string{"containerd/NAME", "containerd/UNDER"}, false, "containerd/UNDER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			must(t, os.RemoveAll(s.dir()))
			s.Home = filepath.Join(s.Root, "home/me")
			paths := strings.NewReplacer("home/", "home/me/.config/containers/certs.d/", "docker/", "etc/docker/certs.d/", "containers/", "etc/containers/certs.d/", "containerd/", "etc/containerd/certs.d/",
				"NAME", s.name.String(), "UNDER", strings.ReplaceAll(s.name.String(), ":", "_")+"_")
			for i, dir := range c.there {
				dir = paths.Replace(dir)
				must(t, os.MkdirAll(filepath.Join(s.Root, dir), 0o755))
				if i == 0 {
					s.write(dir+"/ca.crt", string(s.Registry.Bundle.PEM()))
					s.Registry.Files = []string{filepath.Join(s.Root, dir, "ca.crt")}
				}
			}
			if c.feature {
				s.write("etc/docker/daemon.json", `{"features": {"containerd-snapshotter": true}}`)
			}
			s.Places = []Place{{Runtime: c.runtime, Dir: filepath.Join(s.Root, "etc", c.runtime, "certs.d")}}
			if c.runtime == "containers" {
				s.Places[0].After = filepath.Join(s.Root, "etc/docker/certs.d")
			}
			f := s.examine()
			if c.used == "" && Verdict(f) != OK || c.used != "" && (Verdict(f) != Fail || !strings.Contains(f.String(), "uses "+filepath.Join(s.Root, paths.Replace(c.used)))) {
				t.Errorf("want %q to be used:\n%v", c.used, f)
			}
		})
	}
}

// TestProxies: where an engine's proxy is set, and whether pulls use it.
func TestProxies(t *testing.T) {
	const proxy = "http://proxy.test:3128"
	for _, c := range []struct {
		name string
		make func(s *site)
		uses bool
	}{
		{"the environment", func(s *site) { s.process("dockerd", "HTTPS_PROXY="+proxy) }, true},
		{"its lower case", func(s *site) { s.process("dockerd", "https_proxy="+proxy) }, true},
		{"of another program", func(s *site) { s.process("httpd", "https_proxy="+proxy) }, false},
		{"an exception", func(s *site) { s.process("dockerd", "HTTPS_PROXY="+proxy+" NO_PROXY=.test") }, false},
		{"daemon.json", func(s *site) {
			s.process("dockerd", "")
			s.write("etc/docker/daemon.json", `{"proxies": {"https-proxy": "`+proxy+`"}}`)
		}, true},
		{"a flag", func(s *site) { s.process("dockerd --https-proxy="+proxy, "") }, true},
		{"a drop-in of an engine that does not run", func(s *site) {
			s.write("etc/systemd/system/docker.service.d/proxy.conf", "[Service]\nEnvironment=\"A=b c\" HTTPS_PROXY="+proxy+"\n")
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c.make(s)
			dial := s.Dial
			s.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasPrefix(address, "proxy.test") {
					return nil, errAway
				}
				return dial(ctx, network, address)
			}
			if f := s.examine(); f.has("engine.proxy", Fail, "proxy.test:3128, and that fails") != c.uses || (Verdict(f) == Fail) != c.uses {
				t.Errorf("want the proxy to be used: %v\n%v", c.uses, f)
			}
		})
	}
}

// TestBounded: a network that swallows everything holds nobody up.
func TestBounded(t *testing.T) {
	s := newSite(t)
	synctest.Test(t, func(t *testing.T) {
		wait := func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		cfg := s.Config
		cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, wait(ctx) }
		begin := time.Now()
		if f := findings(Examine(t.Context(), cfg)); Verdict(f) != Fail || time.Since(begin) > stepLimit {
			t.Errorf("after %v:\n%v", time.Since(begin), f)
		}
		cfg.Lookup = func(ctx context.Context, _, _ string) ([]netip.Addr, error) { return nil, wait(ctx) }
		begin = time.Now()
		if f := findings(Examine(t.Context(), cfg)); Verdict(f) != Fail || time.Since(begin) > Limit {
			t.Errorf("after %v:\n%v", time.Since(begin), f)
		}
	})
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/etc/x:5000/ca.crt": "/etc/x:5000/ca.crt", "": "''", "a b": "'a b'", "a'b;c": `'a'\''b;c'`, "$(x)": "'$(x)'"} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}
