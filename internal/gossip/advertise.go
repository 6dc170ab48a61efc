package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// advertised decides which address the others dial: the one configured, else
// the one bound, else for a wildcard the one the kernel would send from.
func advertised(ctx context.Context, bound netip.AddrPort, configured string, peers []string) (netip.AddrPort, error) {
	bound = netip.AddrPortFrom(bound.Addr().Unmap().WithZone(""), bound.Port())
	if configured != "" {
		return configuredAddress(ctx, configured, bound.Port())
	}
	if !bound.Addr().IsUnspecified() {
		return bound, nil
	}
	// Documentation addresses follow the default routes; nothing is sent.
	for _, to := range slices.Concat(peers[:min(1, len(peers))], []string{"192.0.2.1:9", "[2001:db8::1]:9"}) {
		if ip := routeTo(ctx, to); ip.IsValid() && !ip.IsLoopback() {
			return netip.AddrPortFrom(ip, bound.Port()), nil
		}
	}
	return netip.AddrPortFrom(anyAddress(), bound.Port()), nil
}

func configuredAddress(ctx context.Context, configured string, port uint16) (netip.AddrPort, error) {
	host := configured
	if h, p, err := net.SplitHostPort(configured); err == nil {
		n, err := net.DefaultResolver.LookupPort(ctx, "tcp", p)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("advertise gossip as %s: %w", configured, err)
		}
		host, port = h, uint16(n)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), port), nil
	}
	ips := resolve(ctx, host)
	if len(ips) == 0 {
		return netip.AddrPort{}, fmt.Errorf("advertise gossip as %s: the name has no address; give an IP address", configured)
	}
	return netip.AddrPortFrom(ips[0], port), nil
}

// routeTo is the local address of the route to a host:port, or none.
func routeTo(ctx context.Context, address string) netip.Addr {
	d := net.Dialer{Timeout: 2 * time.Second} // for the look-up of a name
	conn, err := d.DialContext(ctx, "udp", address)
	if err != nil {
		return netip.Addr{}
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if err := conn.Close(); err != nil {
		return netip.Addr{}
	}
	return local.Unmap().WithZone("")
}

// anyAddress is an address of this machine when it has no default route;
// loopback when it has no network at all.
func anyAddress() netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().IsGlobalUnicast() {
				return p.Addr().Unmap()
			}
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
