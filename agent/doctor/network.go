package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/gossip"
)

// skewLimit is far below the day that leaves are back-dated.
const skewLimit = 5 * time.Minute

// network says what is wrong on the way to the registry.
func (e *exam) network(n certs.Name, w way) {
	bad := Warn
	if e.someGoDirectly(n) {
		bad = Fail
	}
	if w.lookup != nil {
		fix := toDNS(n.Host)
		text := fmt.Sprintf("%s does not resolve here (%v)", n.Host, short(w.lookup))
		if e.Registry.Fallback != "" && e.Registry.Fallback != n.String() {
			if w.elsewhere == nil {
				text += "; the registry answers at " + e.Registry.Fallback
			} else {
				text += fmt.Sprintf("; nothing answers at %s, which the server names for this case, either (%v)", e.Registry.Fallback, short(w.elsewhere))
			}
			host, _, err := net.SplitHostPort(e.Registry.Fallback)
			if _, noIP := netip.ParseAddr(host); err == nil && noIP == nil {
				fix = fmt.Sprintf("echo '%s %s' >> /etc/hosts   # or add it to DNS", host, n.Host)
			}
		}
		e.add("network.name", bad, n.Host, fix, "%s", text)
		return
	}
	e.ok("network.name", n.Host, "%s is %s", n.Host, list(w.addrs))
	if slices.ContainsFunc(w.addrs, netip.Addr.IsLoopback) {
		e.add("trust.loopback", Warn, n.Host, "let "+n.Host+" lead to an address of the machine's network, also on the machine itself",
			"%s is a loopback address: Docker verifies nothing there, and a pull proves nothing", n.Host)
	}
	a := w.direct
	if a.dial != nil {
		e.add("network.registry", bad, n.String(), "is the server running, and does a firewall let TCP to port "+fmt.Sprint(n.Port)+" through?", "the registry %s cannot be reached (%v)", n, short(a.dial))
		return
	}
	if a.tls != nil {
		e.add("network.registry", Warn, n.String(), "look at what listens at "+n.String(), "something listens at %s, but does not speak TLS (%v)", n, a.tls)
		return
	}
	switch {
	case forAgents(a.chain):
		e.add("network.registry", bad, n.String(), onRegistryPort(n), "%s is the server's port for agents; images use the registry's, usually %s:%d", n, n.Host, certs.DefaultPort)
	case a.code == http.StatusOK || a.code == http.StatusUnauthorized:
		e.ok("network.registry", n.String(), "the registry answers")
	case a.code == 0:
		e.add("network.registry", bad, n.String(), "look at the server's log", "TLS with %s works, but GET /v2/ is not answered", n)
	case a.code >= http.StatusInternalServerError || a.code == http.StatusTooManyRequests:
		e.add("network.registry", bad, n.String(), "`trustcast status` on the server says why", "the registry %s answers %d %s", n, a.code, http.StatusText(a.code))
	default:
		e.add("network.registry", bad, n.String(), "look at what listens at "+n.String(), "what answers at %s is no registry: GET /v2/ gives %d", n, a.code)
	}
	e.clock(n, a)
	e.next(n, w.next)
}

// clock compares this host's with the registry's.
func (e *exam) clock(n certs.Name, a answer) {
	side := "ahead of"
	if a.skew < 0 {
		side = "behind"
	}
	switch {
	case a.code == 0:
	case a.skew.Abs() > skewLimit:
		e.add("network.clock", Warn, n.String(), "set this host's clock (NTP)", "this host's clock is %v %s the registry's", a.skew.Abs().Round(time.Second), side)
	default:
		e.ok("network.clock", n.String(), "this host's clock agrees with the registry's")
	}
}

// server says whether the ports for agents can be reached.
func (e *exam) server(w ways) {
	if !e.Registry.Joined {
		return
	}
	s := e.Registry.Server
	if w.server != nil {
		fix := "is the server running, and does a firewall let TCP to it through?"
		var unresolved *net.DNSError
		if host, _, err := net.SplitHostPort(s); err == nil && errors.As(w.server, &unresolved) {
			fix = toDNS(host)
		}
		e.add("network.server", Warn, s, fix, "the server %s cannot be reached (%v): no rotation is followed", s, short(w.server))
	} else {
		e.ok("network.server", s, "the server's port for agents answers")
	}
	for _, peer := range e.Registry.Peers {
		if g, asked := w.peers[peer]; asked {
			e.gossip(peer, g)
		}
	}
}

// gossip says on which ways a member answers. That one does not is never more than a
// warning.
func (e *exam) gossip(peer string, w gossipWay) {
	let := func(what string) string {
		return "let " + what + " through, or do without: the stream carries everything"
	}
	switch {
	case w.tcp == nil && w.udp == nil:
		e.ok("network.gossip", peer, "gossip answers over TCP and UDP")
	case w.tcp == nil:
		e.add("network.gossip", Warn, peer, let("UDP to "+peer+", and its answers,"), "gossip at %s answers over TCP, but not over UDP (%v)", peer, short(w.udp))
	case w.udp == nil:
		e.add("network.gossip", Warn, peer, let("TCP to "+peer), "gossip at %s answers over UDP, but not over TCP (%v)", peer, short(w.tcp))
	case errors.Is(w.tcp, gossip.ErrUnanswered):
		e.add("network.gossip", Warn, peer, "let the agent run and connect: the server gives it the keys in use", "what listens at %s is not gossip, or has other keys than this host: it does not answer", peer)
	default:
		e.add("network.gossip", Warn, peer, let("TCP and UDP to "+peer), "gossip at %s cannot be reached (%v)", peer, short(w.tcp))
	}
}

func toDNS(host string) string { return "add " + host + " to DNS or to /etc/hosts" }

// forAgents says whether a chain is that of the port for agents: an identity instead of
// a name.
func forAgents(chain []*x509.Certificate) bool {
	return len(chain) > 0 && slices.ContainsFunc(chain[0].URIs, func(u *url.URL) bool { return u.Scheme == "trustcast" })
}

func onRegistryPort(n certs.Name) string {
	return fmt.Sprintf("trustcast-agent doctor %s:%d", n.Host, certs.DefaultPort)
}

// short drops what an error says twice.
func short(err error) error {
	if errors.Is(err, gossip.ErrUnanswered) {
		return gossip.ErrUnanswered
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

func list(addrs []netip.Addr) string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.Unmap().String())
	}
	return strings.Join(all, ", ")
}

// bypass says why a runtime verifies nothing of a registry; "" when it does.
func (e *exam) bypass(r runtime, n certs.Name, w way) string {
	if r.program != "dockerd" {
		return ""
	}
	d := e.engines["dockerd"]
	for _, entry := range append(d.config.Insecure, d.flags("insecure-registry")...) {
		if insecure(entry, n, w.addrs) {
			where := d.file
			if !slices.Contains(d.config.Insecure, entry) {
				where = "dockerd's command line"
			}
			e.add("trust.insecure", Warn, n.String(), "remove it there, then restart Docker", "insecure-registries has %s (%s): Docker does not verify %s, and would send passwords to whoever answers", entry, where, n)
			return entry
		}
	}
	for _, a := range w.addrs {
		if a = a.Unmap(); a.Is4() && a.IsLoopback() {
			return a.String()
		}
	}
	return ""
}

// insecure says whether an entry of insecure-registries is about this registry, the way
// dockerd reads them: a name as it stands in image names, or a range of addresses.
func insecure(entry string, n certs.Name, addrs []netip.Addr) bool {
	if prefix, err := netip.ParsePrefix(entry); err == nil {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return prefix.Contains(a.Unmap()) })
	}
	for _, scheme := range []string{"http://", "https://"} {
		entry = strings.TrimPrefix(entry, scheme)
	}
	return slices.Contains(n.Dirs(), strings.ToLower(entry))
}

// proxyOf is the proxy that a runtime's pulls go through; nil for none.
func (e *exam) proxyOf(r runtime, n certs.Name) *url.URL {
	var p httpproxy.Config
	switch {
	case r.program != "":
		p = e.engines[r.program].proxies()
	case r.user != "":
		return nil // another user's environment
	default:
		env := func(upper, lower string) string {
			if v := e.Getenv(upper); v != "" {
				return v
			}
			return e.Getenv(lower)
		}
		p = httpproxy.Config{HTTPSProxy: env("HTTPS_PROXY", "https_proxy"), NoProxy: env("NO_PROXY", "no_proxy")}
	}
	via, err := p.ProxyFunc()(&url.URL{Scheme: "https", Host: n.String()})
	if err != nil {
		return nil
	}
	return via
}

func (e *exam) someGoDirectly(n certs.Name) bool {
	all := e.runtimes()
	return len(all) == 0 || slices.ContainsFunc(all, func(r runtime) bool { return e.proxyOf(r, n) == nil })
}

// proxy says what a proxy does to a runtime's pulls.
func (e *exam) proxy(r runtime, n certs.Name, via *url.URL, a answer) {
	d := e.engines[r.program]
	fix := "add " + n.Host + " to NO_PROXY of " + r.title + ", then restart it"
	switch {
	case d.running && d.hidden:
		e.add("engine.proxy", Warn, r.title, "run it as root", "whether %s goes through a proxy cannot be seen by this user", r.title)
	case via == nil && r.program != "" && d.running:
		e.ok("engine.proxy", r.title, "%s goes to %s directly", r.title, n)
	case via == nil:
	case errors.Is(a.dial, errUntried):
		e.add("engine.proxy", Warn, r.title, fix, "%s goes to %s through %s, which is not tried here", r.title, n, via.Redacted())
	case a.dial != nil:
		e.add("engine.proxy", Fail, r.title, fix, "%s goes to %s through %s, and that fails (%v)", r.title, n, via.Redacted(), short(a.dial))
	default:
		e.add("engine.proxy", Warn, r.title, fix, "%s goes to %s through %s, which every pull then needs", r.title, n, via.Redacted())
	}
}
