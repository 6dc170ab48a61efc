package server

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// originSystemd is where an address is from that a passed socket has.
const originSystemd = "systemd"

// warnOverridden says that an address was given and does not count.
func (n *node) warnOverridden(flag string, lis net.Listener) {
	key := strings.TrimPrefix(flag, "--")
	for _, s := range n.cfg.Settings {
		if s.Key != key || s.Origin == "default" || sameAddress(s.Value, lis.Addr()) {
			continue
		}
		n.log.Warn(flag+" does not count: systemd's socket has the port. Change ListenStream= of its unit (systemctl edit trustcast-*.socket), or do without it (systemctl mask --now)",
			"given", s.Value, "from", s.Origin, "address", lis.Addr().String())
	}
}

// sameAddress says whether a HOST:PORT that was given is what a listener has; no host is
// all addresses. Names are not looked up.
func sameAddress(given string, has net.Addr) bool {
	at, err := netip.ParseAddrPort(has.String())
	host, port, bad := net.SplitHostPort(given)
	if err != nil || bad != nil || port != strconv.Itoa(int(at.Port())) {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if host == "" || err == nil && ip.IsUnspecified() {
		return at.Addr().IsUnspecified()
	}
	return err == nil && ip.Unmap() == at.Addr().Unmap()
}

// overlaid is a setting as it counts: a passed socket's address, whatever was given.
func (n *node) overlaid(s Setting) Setting {
	name := map[string]string{"listen": socketRegistry, "grpc-listen": socketGRPC, "http-listen": socketHTTP}[s.Key]
	if lis := n.cfg.Sockets[name]; lis != nil {
		s.Value, s.Origin = lis.Addr().String(), originSystemd
	}
	return s
}

// examineSocket: systemd's socket has the port that image names have.
func (n *node) examineSocket(f *findings) {
	lis, name := n.cfg.Sockets[socketRegistry], n.names[0]
	if lis == nil {
		return
	}
	at, err := netip.ParseAddrPort(lis.Addr().String())
	if err != nil || int(at.Port()) == name.Port {
		return
	}
	f.warn("ports.registry", lis.Addr().String(), fmt.Sprintf("systemd's socket is on port %d, and hosts pull from %s", at.Port(), name),
		SocketAdvice(strconv.Itoa(name.Port))+"; a port that is forwarded to it is no mistake")
}

// SocketAdvice says how the registry gets another port where systemd opens it.
func SocketAdvice(port string) string {
	return "`systemctl edit trustcast-registry.socket` ([Socket], ListenStream= and ListenStream=" + port + "), then `systemctl restart trustcast-registry.socket trustcast`"
}
