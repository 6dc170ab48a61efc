package server

import (
	"net/netip"
	"slices"
	"testing"
)

// TestExplained: this machine's addresses are one client's, other machines'
// are not.
func TestExplained(t *testing.T) {
	addresses := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	own := addresses("127.0.0.1", "::1", "192.0.2.1")
	for name, c := range map[string]struct{ hosts, yes, no []netip.Addr }{
		"no host":             {nil, nil, own},
		"hosts elsewhere":     {addresses("192.0.2.7"), addresses("192.0.2.7"), append(addresses("192.0.2.8"), own...)},
		"a host here":         {addresses("192.0.2.1", "192.0.2.7"), append(addresses("192.0.2.7"), own...), addresses("192.0.2.8", "127.0.0.2")},
		"a host via loopback": {addresses("::1"), own, addresses("192.0.2.7")},
	} {
		known := explained(c.hosts, own)
		for _, a := range slices.Concat(c.yes, c.no) {
			if want := slices.Contains(c.yes, a); known[a] != want {
				t.Errorf("%s: %s is explained %v, want %v", name, a, known[a], want)
			}
		}
	}
	if !slices.Contains(ownAddresses(), netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("this machine's addresses are %v, without loopback", ownAddresses())
	}
}
